/** An inspection as text for a terminal. */

import { styleText } from 'node:util';
import type { HandlerDependency, LibraryPatch } from '../library/prepare/report.js';
import type { Inspection } from './inspect.js';

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow';
type Paint = (style: Style, text: string) => string;

const LABEL_COLUMNS = 14;
const MAX_SYMBOLS = 8;

export function formatInspection(inspection: Inspection, colours: boolean): string {
  // Whether to use colours was decided by whoever knows where the text goes.
  const paint: Paint = (style, text) =>
    colours ? styleText(style, text, { validateStream: false }) : text;
  const { refused, warnings, path } = inspection;
  const verdict =
    refused === null ? paint('green', '✔ would be loaded') : paint('red', '✘ would be refused');
  const parts = [
    `${paint('bold', path)}\n${verdict}`,
    table(rows(inspection, paint), paint),
    refused === null ? '' : `${paint('red', refused.code)}\n${indent(clean(refused.message))}`,
    ...warnings.map(
      ({ message, fix }) =>
        `${paint('yellow', '!')} ${clean(message)}\n    ${paint('dim', 'fix')} ${fix}`,
    ),
    warnings.length === 0 && refused === null ? paint('dim', 'no warnings') : '',
  ];
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}

type Row = readonly [label: string, ...lines: string[]];

function rows(inspection: Inspection, paint: Paint): Row[] {
  const { sizeBytes, sha256, platform, arch, preflight, steps } = inspection;
  const { binding, dependencies, patches, handlerSymbols, otherSymbols, threadLocals } = inspection;
  const result: Row[] = [];
  if (sizeBytes !== null && sha256 !== null) {
    result.push(['format', `${platform} ${arch}, ${size(sizeBytes)}`]);
    result.push(['sha256', sha256], ['integrity', integrityOf(sha256)]);
  }
  if (handlerSymbols !== null) {
    const others = otherSymbols?.length ?? 0;
    const and = handlerSymbols.length === 0 ? 'nothing of a handler, but' : 'and';
    const more =
      others === 0 ? [] : [paint('dim', `${and} ${others} that the host has no use for`)];
    result.push(['exports', ...handlerSymbols.slice(0, MAX_SYMBOLS).map(clean), ...more]);
  }
  if (dependencies !== null && dependencies.length > 0) {
    const width = Math.max(...dependencies.map(({ name }) => name.length));
    result.push(['needs', ...dependencies.map((each) => dependency(each, width, paint))]);
  }
  if (patches !== null && patches.length > 0) {
    result.push(['changed', ...patches.map(patch)]);
  }
  if (binding !== null) result.push(['binding', `${binding.mode}, ${clean(binding.reason)}`]);
  if (threadLocals !== null) result.push(['thread-locals', threadLocals ? 'yes' : 'no']);
  if (preflight !== null) {
    const { name, version, description } = preflight.info;
    const says = [name, version, description].filter((text) => text !== null).map(clean);
    result.push([
      'says',
      says.length === 0 ? paint('dim', 'nothing (no handler_info)') : says.join(', '),
    ]);
  }
  if (steps.length > 0) {
    const times = steps.map(({ step, tookMs }) => `${step} ${tookMs.toFixed(1)} ms`);
    result.push(['pre-flight', times.join(', ')]);
  }
  if (preflight !== null) {
    result.push(['unloads', yesNo(preflight.unloads)]);
    result.push(['left behind', left(preflight.threadsLeft, preflight.descriptorsLeft)]);
  }
  return result;
}

function dependency(
  { name, path, kind, keepsThreads, byName }: HandlerDependency,
  width: number,
  paint: Paint,
): string {
  const found = path === null ? paint('red', 'not found') : paint('dim', clean(path));
  const what = kind === 'system' ? '' : `  ${kind}`;
  const when = byName ? '  opened by name' : '';
  const stays = keepsThreads ? '  stays mapped (runtime)' : '';
  return `${clean(name).padEnd(width)}  ${found}${what}${when}${stays}`;
}

/** What is changed in a private copy. */
function patch({ library, uniqueSymbols, names, searchPath }: LibraryPatch): string {
  const parts = [
    uniqueSymbols > 0
      ? `${uniqueSymbols} unique ${uniqueSymbols === 1 ? 'symbol' : 'symbols'} made ordinary`
      : '',
    names > 0 ? `${names} ${names === 1 ? 'name of a library' : 'names of libraries'}` : '',
    searchPath ? 'where it looks for libraries' : '',
  ].filter((part) => part !== '');
  return `${clean(library)}: ${parts.join(', ')}`;
}

function left(threads: number | null, descriptors: number | null): string {
  if (threads === null || descriptors === null) return 'unknown';
  if (threads === 0 && descriptors === 0) return 'nothing';
  return `threads: ${threads}, file descriptors: ${descriptors}`;
}

function yesNo(value: boolean | null): string {
  return value === null ? 'unknown' : value ? 'yes' : 'no';
}

function table(all: readonly Row[], paint: Paint): string {
  return all
    .flatMap(([label, ...lines]) =>
      lines.map((line, index) => {
        const shown = (index === 0 ? label : '').padEnd(LABEL_COLUMNS);
        return `  ${paint('dim', shown)} ${line}`;
      }),
    )
    .join('\n');
}

function indent(text: string): string {
  return text.replaceAll(/^/gm, '  ');
}

/** Names and messages come from the library: they must not steer the terminal. */
function clean(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}]/gu, (character) => (character === '\n' ? ' ' : '\uFFFD'));
}

function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  const isLarge = bytes >= 1024 * 1024;
  return `${(bytes / (isLarge ? 1024 * 1024 : 1024)).toFixed(1)} ${isLarge ? 'MiB' : 'KiB'}`;
}

function integrityOf(sha256: string): string {
  return `sha256-${Buffer.from(sha256, 'hex').toString('base64')}`;
}
