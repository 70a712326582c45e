/**
 * Compares what a registry says of itself with the model, many times a second. A caller is told in the very turn of the
 * event loop in which the engine counts, so between two turns both must agree exactly, whatever is going on.
 */

import type { HandlerRegistry, OutcomeTotals, VersionStats } from '../../src/index.js';
import type { Ledger } from './ledger.js';
import type { EndpointModel, Model, ModelVersion } from './model.js';

interface Sums {
  loaded: number;
  draining: number;
  activeRequests: number;
  drainingRequests: number;
}

export function audit(registry: HandlerRegistry, model: Model, ledger: Ledger): void {
  ledger.audits += 1;
  const compare = (where: string, what: string, said: unknown, must: unknown) => {
    ledger.compared += 1;
    if (said !== must) ledger.problem(where, `${what}: said ${said}, must be ${must}`);
  };
  const sums: Sums = { loaded: 0, draining: 0, activeRequests: 0, drainingRequests: 0 };
  const stats = registry.stats();
  let hanging = 0;
  for (const { id, activeVersion, versions } of stats.endpoints) {
    const endpoint = model.of(id);
    const active = endpoint.active?.handler;
    compare(id, 'the active version', activeVersion, active?.version ?? null);
    compare(id, 'get() gives that version', registry.get(id) === active, true);
    if (active !== undefined) compare(id, 'its state', active.state, 'active');
    for (const version of versions) {
      if (version.state === 'failed') hanging += 1;
      else auditVersion(id, endpoint, version, sums, compare, ledger);
    }
    forgetRetired(endpoint);
  }
  const loaded = [...model.endpoints.values()].filter(({ active }) => active !== undefined);
  compare('stats', 'loadedCount', stats.loadedCount, loaded.length);
  compare('stats', 'loadedCount of the endpoints', stats.loadedCount, sums.loaded);
  compare('stats', 'count', registry.count, loaded.length);
  compare('stats', 'drainingCount', stats.drainingCount, sums.draining);
  compare('stats', 'activeRequests', stats.activeRequests, sums.activeRequests);
  compare('stats', 'drainingRequests', stats.drainingRequests, sums.drainingRequests);
  compare('stats', 'hangingLoads', stats.hangingLoads, hanging);
  // What is loaded comes up, or is refused before it has a lane.
  if (!model.isClosed) compare('stats', 'hangingLoads of an open registry', hanging, 0);
}

type Compare = (where: string, what: string, said: unknown, must: unknown) => void;

function auditVersion(
  id: string,
  { active, versions }: EndpointModel,
  said: VersionStats,
  sums: Sums,
  compare: Compare,
  ledger: Ledger,
): void {
  const where = `${id}@${said.version}`;
  const model: ModelVersion | undefined = versions.get(said.version);
  if (model === undefined) {
    ledger.problem(where, `a ${said.state} version nobody made`);
    return;
  }
  const { handler, known } = model;
  const isActive = model === active;
  compare(where, 'whether it is active', said.state === 'active', isActive);
  if (isActive) {
    sums.loaded += 1;
    sums.activeRequests += said.activeRequests;
  } else {
    sums.draining += 1;
    sums.drainingRequests += said.activeRequests;
  }
  for (const name of Object.keys(known.totals) as (keyof OutcomeTotals)[]) {
    compare(where, name, said.totals[name], known.totals[name]);
  }
  const { unsettled, guards } = known;
  const { queued, running, abandoned, activeRequests } = said;
  compare(where, 'activeRequests', activeRequests, unsettled + abandoned + guards);
  compare(where, 'activeRequests of the version itself', handler.activeRequests, activeRequests);
  // What has been done and not collected is neither queued nor running.
  const isPossible = queued + running <= unsettled + abandoned;
  compare(where, 'what is queued or runs is in flight', isPossible, true);
  compare(where, 'draining', handler.draining, !isActive);
  const gone = said.state === 'drained' || said.state === 'retired';
  if (gone) compare(where, `activeRequests of a ${said.state} version`, activeRequests, 0);
}

function forgetRetired({ versions }: EndpointModel): void {
  for (const [number, { handler }] of versions) {
    if (handler.state === 'retired') versions.delete(number);
  }
}
