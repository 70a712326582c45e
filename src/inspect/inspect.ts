/** All there is to say about a library, for whoever writes one. Loads nothing into this process. */

import { basename, resolve } from 'node:path';
import { LoadError, UnsafeLibraryError } from '../errors.js';
import type { BindingReport } from '../library/binding/decide.js';
import { ElfFile } from '../library/elf/elf-file.js';
import type { LoadPlan } from '../library/load-plan.js';
import { type Prepared, prepareLibrary } from '../library/prepare/prepare.js';
import type { HandlerDependency, LibraryPatch } from '../library/prepare/report.js';
import type { SafetyRules } from '../library/safety.js';
import { LibraryStore, type PrivateCopy } from '../library/store.js';
import { resolveEndpointOptions } from '../options.js';
import { type ChildReport, runChild } from '../preflight/child.js';
import { judge } from '../preflight/judge.js';
import type { SelfTest } from '../preflight/options.js';
import { encodeSelfTest, type PreflightReport } from '../preflight/preflight.js';
import type { PreflightStep } from '../preflight/protocol.js';
import {
  elfAdvice,
  preflightAdvice,
  preparedAdvice,
  strayExports,
  type Warning,
} from './advice.js';
import { elfFacts } from './elf-facts.js';

export interface InspectOptions {
  selfTest?: SelfTest | undefined;
  env: Record<string, string>;
  timeoutMs?: number | undefined;
}

/** A refusal, as the error that a load would be rejected with says it. */
export interface Refusal {
  code: string;
  message: string;
  /** Of pre-flight, where it was that. */
  step?: PreflightStep;
  signal?: string;
  exitCode?: number;
}

/** Null is what is not known: because the library was refused before, or on platforms without ELF. */
export interface Inspection {
  path: string;
  /** Why a load would be refused. */
  refused: Refusal | null;
  sizeBytes: number | null;
  sha256: string | null;
  platform: string;
  /** The machine it is for, which is this one: others are refused. */
  arch: string;
  /** The libraries that it needs, directly or not. */
  dependencies: HandlerDependency[] | null;
  /** What is changed in private copies before they are loaded. */
  patches: LibraryPatch[] | null;
  /** How its symbols are bound, and why. */
  binding: BindingReport | null;
  /** The handler's functions that it exports. */
  handlerSymbols: string[] | null;
  /** What it exports besides. */
  otherSymbols: string[] | null;
  threadLocals: boolean | null;
  preflight: PreflightReport | null;
  /** How long each step of pre-flight took, as far as it came. */
  steps: { step: PreflightStep; tookMs: number }[];
  warnings: Warning[];
}

export async function inspect(path: string, options: InspectOptions): Promise<Inspection> {
  const inspection: Inspection = {
    path: resolve(path),
    refused: null,
    sizeBytes: null,
    sha256: null,
    platform: process.platform,
    arch: process.arch,
    dependencies: null,
    patches: null,
    binding: null,
    handlerSymbols: null,
    otherSymbols: null,
    threadLocals: null,
    preflight: null,
    steps: [],
    warnings: [],
  };
  const store = new LibraryStore();
  let copy: PrivateCopy | undefined;
  let prepared: Prepared | undefined;
  let unsafe: Refusal | null = null;
  // Where it lies is one thing, what it is another, and its author will want to know both.
  const evenIfUnsafe = async <T>(work: (rules: SafetyRules) => Promise<T>): Promise<T> =>
    work({}).catch((error: unknown) => {
      if (!(error instanceof UnsafeLibraryError)) throw error;
      unsafe ??= refusalOf(error);
      return work({ allowUnsafePermissions: true });
    });
  try {
    copy = await evenIfUnsafe((rules) => store.copy(inspection.path, 'inspect', rules));
    inspection.sizeBytes = copy.sizeBytes;
    inspection.sha256 = copy.sha256;
    if (process.platform === 'linux') addElf(inspection, copy.path);
    const parts = { store, copy, isolation: 'thread', env: options.env, binding: 'auto' } as const;
    prepared = await evenIfUnsafe((rules) => prepareLibrary({ ...parts, rules }));
    inspection.warnings.push(...preparedAdvice(prepared));
    if (process.platform === 'linux') {
      inspection.dependencies = prepared.dependencies;
      inspection.patches = prepared.patches;
      inspection.binding = prepared.binding;
    }
    await addPreflight(inspection, prepared.plan, options);
  } catch (error) {
    if (!(error instanceof LoadError)) throw error;
    inspection.refused = refusalOf(error);
  } finally {
    await prepared?.remove();
    await copy?.remove();
    await store.close();
  }
  inspection.refused ??= unsafe;
  return inspection;
}

/** The file as it was deployed. */
function addElf(inspection: Inspection, copyPath: string): void {
  const elf = withElf(copyPath, elfFacts);
  const names = elf.exported.map(({ name }) => name);
  inspection.handlerSymbols = names.filter((name) => name.startsWith('handler_')).sort();
  inspection.otherSymbols = strayExports(elf).sort();
  inspection.threadLocals = elf.threadLocals;
  inspection.warnings.push(...elfAdvice(elf));
}

async function addPreflight(
  inspection: Inspection,
  plan: LoadPlan,
  { selfTest, env, timeoutMs }: InspectOptions,
): Promise<void> {
  const { path } = inspection;
  const { maxPayloadBytes, stackBytes, loadTimeoutMs } = resolveEndpointOptions({
    ...(timeoutMs === undefined ? {} : { loadTimeoutMs: timeoutMs }),
  });
  const { lengths, body } = encodeSelfTest(selfTest, maxPayloadBytes);
  const child = await runChild({
    task: { plan, stackBytes, maxPayloadBytes, selfTest: lengths },
    body,
    env,
    timeoutMs: loadTimeoutMs,
    signal: undefined,
  });
  inspection.steps = stepsOf(child);
  const identity = { endpoint: basename(path), version: 1 };
  inspection.preflight = judge(child, { path, identity, loadTimeoutMs });
  inspection.warnings.push(...preflightAdvice(inspection.preflight, inspection.warnings));
}

function withElf<T>(path: string, look: (file: ElfFile) => T): T {
  const file = ElfFile.open(path);
  try {
    return look(file);
  } finally {
    file.close();
  }
}

/** Each step but the last ends where the next begins; the last one ends the process. */
function stepsOf({ messages }: ChildReport): Inspection['steps'] {
  const begun = messages.filter((message) => message.type === 'step');
  return begun.flatMap(({ step, atMs }, index) => {
    const next = begun[index + 1];
    return next === undefined ? [] : [{ step, tookMs: next.atMs - atMs }];
  });
}

function refusalOf(error: LoadError): Refusal {
  const { code, message } = error;
  const { step, signal, exitCode } = error as LoadError & Partial<Refusal>;
  return {
    code,
    message,
    ...(step === undefined ? {} : { step }),
    ...(signal === undefined ? {} : { signal }),
    ...(exitCode === undefined ? {} : { exitCode }),
  };
}
