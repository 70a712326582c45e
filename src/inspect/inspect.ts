/** All there is to say about a library, for whoever writes one. Loads nothing into this process. */

import { open } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { LoadError, UnsafeLibraryError } from '../errors.js';
import { plainPlan } from '../library/load-plan.js';
import { LibraryStore, type PrivateCopy } from '../library/store.js';
import { resolveEndpointOptions } from '../options.js';
import { type ChildReport, runChild } from '../preflight/child.js';
import { judge } from '../preflight/judge.js';
import type { SelfTest } from '../preflight/options.js';
import { encodeSelfTest, type PreflightReport } from '../preflight/preflight.js';
import type { PreflightStep } from '../preflight/protocol.js';
import { elfAdvice, preflightAdvice, strayExports, type Warning } from './advice.js';
import { type Dependency, resolveDependencies } from './dependencies.js';
import { type ElfFacts, readElfFacts } from './elf-facts.js';

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
  dependencies: Dependency[] | null;
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
    handlerSymbols: null,
    otherSymbols: null,
    threadLocals: null,
    preflight: null,
    steps: [],
    warnings: [],
  };
  const store = new LibraryStore();
  let copy: PrivateCopy | undefined;
  let unsafe: Refusal | null = null;
  try {
    copy = await store.copy(inspection.path, 'inspect').catch((error: unknown) => {
      if (!(error instanceof UnsafeLibraryError)) throw error;
      // Where it lies is one thing, what it is another, and its author will want to know both.
      unsafe = refusalOf(error);
      return store.copy(inspection.path, 'inspect', { allowUnsafePermissions: true });
    });
    inspection.sizeBytes = copy.sizeBytes;
    inspection.sha256 = copy.sha256;
    if (process.platform === 'linux') await addElf(inspection, copy.path, options);
    await addPreflight(inspection, copy.path, options);
  } catch (error) {
    if (!(error instanceof LoadError)) throw error;
    inspection.refused = refusalOf(error);
  } finally {
    await copy?.remove();
    await store.close();
  }
  inspection.refused ??= unsafe;
  return inspection;
}

async function addElf(
  inspection: Inspection,
  copyPath: string,
  { env }: InspectOptions,
): Promise<void> {
  const elf = await factsOf(copyPath);
  const stray = strayExports(elf);
  if (elf.exported !== null) {
    const names = elf.exported.map(({ name }) => name);
    inspection.handlerSymbols = names.filter((name) => name.startsWith('handler_')).sort();
    inspection.otherSymbols = stray.sort();
  }
  inspection.threadLocals = elf.threadLocals;
  inspection.dependencies = await resolveDependencies(copyPath, elf.needed, env);
  // Node's own table is large, and only of interest if there is something to look for in it.
  const node = stray.length === 0 ? null : await factsOf(process.execPath);
  const nodeExports = new Set(node?.exported?.map(({ name }) => name));
  inspection.warnings.push(...elfAdvice(elf, nodeExports));
}

async function addPreflight(
  inspection: Inspection,
  copyPath: string,
  { selfTest, env, timeoutMs }: InspectOptions,
): Promise<void> {
  const { path } = inspection;
  const { maxPayloadBytes, stackBytes, loadTimeoutMs } = resolveEndpointOptions({
    ...(timeoutMs === undefined ? {} : { loadTimeoutMs: timeoutMs }),
  });
  const { lengths, body } = encodeSelfTest(selfTest, maxPayloadBytes);
  const child = await runChild({
    task: { plan: plainPlan(copyPath), stackBytes, maxPayloadBytes, selfTest: lengths },
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

async function factsOf(path: string): Promise<ElfFacts> {
  const file = await open(path, 'r');
  return readElfFacts(file).finally(() => file.close());
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
