// What the supervisor of an instance is built on, and whom it tells what has happened.

import type { Cgroup } from "../host/cgroup.ts";
import type { Host } from "../host.ts";
import type { TargetLog } from "../log.ts";
import type { InstanceId } from "../model.ts";
import type { Output } from "../output.ts";
import type { InstanceSettings } from "../settings.ts";
import type { RunIdentity } from "./tree.ts";

/** What happens to an instance's process, for those who hold something for it. */
export interface SupervisorEvents {
  /** A new process runs; it cannot have connected yet. */
  started(run: RunIdentity): void;
  /** The process has ended by itself or by a stop; what it has started may still be ending. */
  exited(): void;
  /** Nothing is left of this run. */
  gone(run: RunIdentity): void;
  /** Something worth remembering has happened; the state, if it has changed, has changed already. */
  happened(kind: HappeningKind, detail: Readonly<Record<string, unknown>>): void;
}

export type HappeningKind =
  | "started"
  | "start_failed"
  | "exited"
  | "restarting"
  | "failed"
  | "stopping"
  | "stopped"
  | "stop_failed"
  | "swept";

export interface SupervisorOptions {
  readonly id: InstanceId;
  readonly host: Host;
  readonly log: TargetLog;
  readonly output: Output;
  readonly events: SupervisorEvents;
  /** Before a restart. @throws if it must not be run any more */
  prepare(): Promise<void>;
  /** What is run, as it stands when a process is started. */
  program(): { readonly path: string; readonly env: Readonly<Record<string, string>> };
  settings(): InstanceSettings;
  /** A mark that no other run has; it goes into the environment of the process. */
  newMark(): string;
  /** A control group for a run, where the system lets us have one. */
  newCgroup(mark: string): Cgroup | undefined;
  random(): number;
}
