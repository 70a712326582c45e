export type { DispatcherStats, OutcomeTotals, ShedError } from './dispatcher.js';
export type { DrainReport, LibraryFate } from './drain-report.js';
export type { EndpointStats, SwapResult } from './endpoint.js';
export * from './errors.js';
export type { RegistryEmitter, RegistryEvents } from './events.js';
export { exitProcess } from './exit-process.js';
export type { HandlerInfo, WearReason } from './lane-protocol.js';
export type { LaneCounts } from './lanes.js';
export type { LatencyStats, LatencySummary } from './latency.js';
export type { BindingReport } from './library/binding/decide.js';
export { libraryFileName } from './library/name.js';
export type { HandlerDependency, LibraryPatch, SharedStatics } from './library/prepare/report.js';
export type {
  BindingOption,
  EndpointOptions,
  Isolation,
  LoadOptions,
  RegistryOptions,
} from './options.js';
export type { PreflightOptions, SelfTest } from './preflight/options.js';
export type { PreflightReport } from './preflight/preflight.js';
export type { PreflightStep } from './preflight/protocol.js';
export {
  type CloseOptions,
  type CloseReport,
  type EndpointHandle,
  HandlerRegistry,
  type LeftBehind,
  type RegistryStats,
  type UnloadOptions,
} from './registry.js';
export type { RequestContext, RequestPayload } from './request.js';
export type { VersionIdentity } from './request-errors.js';
export { HandlerResponse } from './response.js';
export type { ExecuteOptions, LoadedHandler, RequestGuard, VersionStats } from './version.js';
export type { VersionState } from './version-state.js';
