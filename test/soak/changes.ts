/** Who deploys to one endpoint: swaps, failing swaps, unloading and loading, one after the other. */

import { setTimeout as pause } from 'node:timers/promises';
import { fixture } from '../../fixtures/paths.js';
import type { DrainReport, EndpointOptions, LoadedHandler } from '../../src/index.js';
import { activeOf, type SoakEndpoint } from './endpoint.js';
import type { Library } from './handlers.js';
import type { Change } from './kinds.js';
import type { Random } from './random.js';
import { childProcesses } from './resources.js';
import { hasFields } from './verdict.js';
import type { KnownVersion } from './versions.js';

const MOST_SHORT_DRAIN_MS = 30;
const CLOSED = { code: 'ERR_HANDLER_CLOSED' };

export class Operator {
  readonly #endpoint: SoakEndpoint;
  readonly #random: Random;
  readonly #drains = new Set<Promise<void>>();
  #hasEnded = false;

  constructor(endpoint: SoakEndpoint) {
    this.#endpoint = endpoint;
    this.#random = endpoint.random('changes');
  }

  /** The first load. */
  async begin(): Promise<void> {
    const { kind } = this.#endpoint;
    await this.#replace('load', kind.libraries[0]);
  }

  /** Makes changes until it is told to stop; resolves when what it has taken out of service has drained. */
  async run(): Promise<void> {
    const { kind, stop, changeEveryMs } = this.#endpoint;
    for (;;) {
      try {
        await pause(this.#random.pauseMs(changeEveryMs), undefined, { signal: stop });
      } catch {
        break;
      }
      await this.#change(this.#random.weighted(kind.changes));
    }
    await Promise.all(this.#drains);
  }

  /** Takes the last version out of service, and resolves when it has drained. */
  async end(): Promise<void> {
    this.#unload(undefined);
    this.#hasEnded = true;
    await Promise.all(this.#drains);
  }

  async #change(change: Change): Promise<void> {
    if (change === 'broken') return this.#failToLoad();
    if (change === 'reload') return this.#reload();
    return this.#replace(change, this.#random.pick(this.#endpoint.kind.libraries));
  }

  async #replace(change: Change, library: Library): Promise<void> {
    const { kind, fickle } = this.#endpoint;
    const replace = (more: EndpointOptions) => this.#replaceWith(change, library, more);
    await (kind.fickle ? fickle.during(() => replace(fickle.options)) : replace({}));
  }

  async #replaceWith(change: Change, library: Library, more: EndpointOptions): Promise<void> {
    const { kind, registry, ledger, versions, model, closing } = this.#endpoint;
    if (closing.aborted) return;
    const before = activeOf(this.#endpoint);
    const old = before === undefined ? undefined : versions.of(before);
    ledger.step(kind.id, `${change} of ${library}`);
    model.attempts += 1;
    const threads = this.#random.int(1, kind.options.threads ?? 1);
    const options = { ...kind.options, ...more, threads };
    const path = fixture(library);
    let drained: Promise<DrainReport> | undefined;
    try {
      if (change === 'swap') {
        old?.mayDrop.add('swap');
        ({ drained } = await registry.swap(kind.id, path, options));
      } else if (change === 'load') {
        await registry.loadFrom(kind.id, path, options);
      } else {
        const drainTimeoutMs =
          change === 'shortDrain' ? this.#random.int(0, MOST_SHORT_DRAIN_MS) : undefined;
        if (drainTimeoutMs !== undefined) old?.mayDrop.add('drain-timeout').add('swap');
        ({ drained } = await registry.swapGraceful(kind.id, path, drainTimeoutMs, options));
      }
    } catch (error) {
      if (closing.aborted && hasFields(error, CLOSED)) return;
      return this.#problem(`${change} of ${library} failed: ${String(error)}`);
    }
    const after = activeOf(this.#endpoint);
    // Closed in the very turn in which it became active.
    if (closing.aborted && after === undefined) return;
    if (after === undefined || after === before || after.path !== path) {
      this.#problem(`${change} of ${library} has not made it the active version`);
    }
    if (after !== undefined) {
      const problem = model.replaced({ handler: after, known: versions.of(after) }, threads);
      if (problem !== null) this.#problem(problem);
    }
    ledger.changes.add(change);
    if (before !== undefined && old !== undefined && drained !== undefined) {
      this.#follow(before, old, drained);
    }
  }

  async #failToLoad(): Promise<void> {
    const { kind, registry, ledger, broken, model, closing } = this.#endpoint;
    if (closing.aborted) return;
    const { what, path, options, error } = this.#random.pick(broken);
    const before = activeOf(this.#endpoint);
    ledger.step(kind.id, `refused: ${what}`);
    model.attempts += 1;
    const how = this.#random.pick(['swap', 'loadFrom'] as const);
    const refused: unknown = await registry[how](kind.id, path, options).then(
      () => 'it was loaded',
      (reason: unknown) => reason,
    );
    if (closing.aborted && hasFields(refused, CLOSED)) return;
    if (!hasFields(refused, error)) this.#problem(`${what}: ${String(refused)}`);
    const unchanged = closing.aborted ? undefined : before;
    if (activeOf(this.#endpoint) !== unchanged) this.#problem(`${what} changed what is active`);
    ledger.changes.add(`refused: ${what}`);
  }

  async #reload(): Promise<void> {
    const { kind } = this.#endpoint;
    const drained = this.#unload(this.#random.pick([0, 20, undefined]));
    // Loaded again at once, or when nothing of it is left.
    if (this.#random.chance(0.5)) await drained;
    await this.#replace('load', this.#random.pick(kind.libraries));
  }

  #unload(drainTimeoutMs: number | undefined): Promise<DrainReport> | undefined {
    const { kind, registry, ledger, versions, model, closing } = this.#endpoint;
    if (closing.aborted) return undefined;
    const before = activeOf(this.#endpoint);
    if (before === undefined) {
      if (this.#hasEnded) return undefined;
      this.#problem('nothing is loaded');
      return undefined;
    }
    const old = versions.of(before);
    if (drainTimeoutMs !== undefined) old.mayDrop.add('unload').add('drain-timeout');
    ledger.step(kind.id, `unload within ${drainTimeoutMs ?? 'the default'} ms`);
    model.unloaded();
    const drained = registry.unload(
      kind.id,
      drainTimeoutMs === undefined ? {} : { drainTimeoutMs },
    );
    this.#follow(before, old, drained);
    ledger.changes.add('unload');
    return drained;
  }

  /** Checks what is reported of a version that was taken out of service. */
  #follow(handler: LoadedHandler, version: KnownVersion, drained: Promise<DrainReport>): void {
    const processes = this.#processesOf(handler);
    const checked = drained.then(async (report) => {
      const { guards } = version;
      // The last callers have been answered, and hear of it in this turn.
      await new Promise(setImmediate);
      const { ledger } = this.#endpoint;
      ledger.drains.add(report.library);
      const { abandoned, dropped, library } = report;
      if (dropped !== version.dropped) {
        this.#problem(`${dropped} reported as dropped, and ${version.dropped} were`);
      }
      if (library === 'resident' && abandoned === 0 && guards === 0) {
        this.#problem(`${version.library} stayed: ${report.reason}`);
      }
      if (abandoned === 0 && guards === 0 && handler.state !== 'retired') {
        this.#problem(`${version.library} is ${handler.state} after its report`);
      }
      if (handler.state === 'retired') this.#checkGone(version, processes);
    });
    this.#drains.add(checked);
    void checked.finally(() => this.#drains.delete(checked));
  }

  #checkGone(version: KnownVersion, processes: readonly number[]): void {
    const left = new Set(childProcesses());
    if (processes.some((pid) => left.has(pid))) {
      this.#problem(`${version.library} has retired, and a process of it is left`);
    }
  }

  #processesOf(handler: LoadedHandler): readonly number[] {
    const { registry, kind } = this.#endpoint;
    const { endpoints } = registry.stats();
    const versions = endpoints.find(({ id }) => id === kind.id)?.versions ?? [];
    return versions.find(({ version }) => version === handler.version)?.processIds ?? [];
  }

  #problem(what: string): void {
    this.#endpoint.ledger.problem(this.#endpoint.kind.id, what);
  }
}
