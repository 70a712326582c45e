/** What the demo found out: as numbers, and as a table for a terminal of 80 columns. */
import type { DrainReport } from '../../src/index.js';
import type { VersionTally } from './traffic.js';

/** Times are milliseconds, rates bytes a second. */
export interface Report {
  directory: string;
  files: number;
  /** Files and directories that could not be read. */
  unreadable: number;
  blocks: number;
  chunkBytes: number;
  threads: number;
  inFlight: number;
  requests: number;
  /** Requests for blocks sent again while v2 was loading. */
  repeats: number;
  bytesIn: number;
  bytesOut: number;
  versions: VersionReport[];
  /** Requests that got an error instead of an answer. */
  lost: number;
  /** The first of these errors. */
  firstError: string | undefined;
  /** Blocks that do not decode to what went in. */
  wrong: number;
  /** From the call of swapGraceful until the new version was active. */
  swapMs: number;
  /** Requests of the old version that had not returned when the new one became active. */
  pendingAtSwap: number;
  /** What became of the old version; undefined if the engine did not say. */
  drain: DrainReport | undefined;
  /** How late the main thread's timers were while requests were running. */
  eventLoopDelayP99Ms: number;
  eventLoopDelayMaxMs: number;
  /** Time in which requests were running; reading and verifying are not in it. */
  engineMs: number;
  passed: boolean;
}

export interface VersionReport {
  version: number;
  library: string;
  requests: number;
  bytesIn: number;
  bytesOut: number;
  /** Input bytes for each output byte. */
  ratio: number;
  /** Input, from its first request to its last answer. */
  bytesPerSecond: number;
  /** Input, while a lane was in its native code. */
  bytesPerSecondPerLane: number;
}

export function versionReport(tally: VersionTally, library: string): VersionReport {
  const { version, requests, bytesIn, bytesOut } = tally;
  return {
    version,
    library,
    requests,
    bytesIn,
    bytesOut,
    ratio: quotient(bytesIn, bytesOut),
    bytesPerSecond: quotient(bytesIn * 1000, tally.lastAnsweredMs - tally.firstSentMs),
    bytesPerSecondPerLane: quotient(bytesIn * 1000, tally.ranMs),
  };
}

/** Whether all went well. Only Linux can tell for sure whether a library has been unloaded. */
export function hasPassed(report: Omit<Report, 'passed'>): boolean {
  const unloaded = process.platform !== 'linux' || report.drain?.library === 'unloaded';
  return report.lost === 0 && report.wrong === 0 && unloaded;
}

export const megabytes = (bytes: number): number => bytes / 1e6;

/** Where columns end. */
const LABEL_WIDTH = 18;
const COLUMN_WIDTH = 18;

export function table(report: Report): string {
  const { versions, drain } = report;
  const columns = (label: string, cell: (version: VersionReport) => string, total = '') =>
    [...versions.map(cell), total].reduce(
      (line, text) => line + text.padStart(COLUMN_WIDTH),
      `  ${label}`.padEnd(LABEL_WIDTH),
    );
  const line = (label: string, text: string) => `  ${label}`.padEnd(LABEL_WIDTH + 2) + text;
  const unreadable = report.unreadable === 0 ? '' : ` (and ${report.unreadable} unreadable)`;
  const again = report.repeats === 0 ? '' : `, ${whole(report.repeats)} repeated while v2 loaded`;

  return [
    '',
    line('files', `${whole(report.files)}${unreadable}`),
    line('blocks', `${whole(report.blocks)} of up to ${whole(report.chunkBytes)} bytes${again}`),
    line('lanes', `${report.threads} a version, ${report.inFlight} requests in flight`),
    '',
    columns('', ({ version, library }) => `v${version} ${library}`, 'both'),
    columns('requests', ({ requests }) => whole(requests), whole(report.requests)),
    columns('MB in', ({ bytesIn }) => mb(bytesIn), mb(report.bytesIn)),
    columns('MB out', ({ bytesOut }) => mb(bytesOut), mb(report.bytesOut)),
    columns(
      'ratio',
      ({ ratio }) => ratio.toFixed(2),
      quotient(report.bytesIn, report.bytesOut).toFixed(2),
    ),
    columns(
      'MB/s',
      ({ bytesPerSecond }) => mb(bytesPerSecond),
      mb(quotient(report.bytesIn * 1000, report.engineMs)),
    ),
    columns('MB/s a lane', ({ bytesPerSecondPerLane }) => mb(bytesPerSecondPerLane)),
    '',
    line('requests lost', whole(report.lost)),
    ...(report.firstError === undefined ? [] : [line('first error', report.firstError)]),
    line('results wrong', whole(report.wrong)),
    line('swap', `${report.swapMs.toFixed(1)} ms to load v2 and make it active`),
    line('drain', `${drainText(drain)}${whole(report.pendingAtSwap)} requests were on v1`),
    line('old library', libraryText(drain)),
    line('event loop', delayText(report)),
    line('time', `${(report.engineMs / 1000).toFixed(2)} s, without reading and verifying`),
    '',
  ].join('\n');
}

function drainText(drain: DrainReport | undefined): string {
  if (drain === undefined) return 'not reported; ';
  const { tookMs, dropped, abandoned } = drain;
  const left = dropped + abandoned === 0 ? '' : `${dropped} dropped, ${abandoned} abandoned; `;
  return `${tookMs.toFixed(1)} ms; ${left}`;
}

function libraryText(drain: DrainReport | undefined): string {
  if (drain === undefined) return 'not reported';
  return drain.reason === undefined ? drain.library : `${drain.library}: ${drain.reason}`;
}

function delayText({ eventLoopDelayP99Ms: p99Ms, eventLoopDelayMaxMs: maxMs }: Report): string {
  return `delay p99 ${p99Ms.toFixed(1)} ms, worst ${maxMs.toFixed(1)} ms`;
}

const whole = (value: number) => value.toLocaleString('en-US');
const mb = (bytes: number) => megabytes(bytes).toFixed(1);

/** 0 where there is nothing to divide by: JSON has no NaN. */
function quotient(dividend: number, divisor: number): number {
  return divisor > 0 ? dividend / divisor : 0;
}
