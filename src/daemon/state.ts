// What a daemon finds of the one before, and leaves for the next one.

import { join } from "node:path";

import type { Address } from "../address.ts";
import { hinted, messageChain, OrchestratorError, systemCode } from "../errors.ts";
import { mayBeThere } from "../files.ts";
import type { Host } from "../host.ts";
import { bootId } from "../host/processes.ts";
import { KILL_WAIT_MS } from "../limits.ts";
import type { TargetLog } from "../log.ts";
import type { Store } from "../store.ts";
import type { StoredInstance } from "../store/records.ts";
import { ephemeralState, openState, type State, stateFolders } from "../store/state.ts";
import { recover } from "../supervisor/recovery.ts";
import { formatProcesses } from "../supervisor/tree.ts";
import type { DaemonOptions } from "./options.ts";

/** Why the system lets nobody, or not us, make anything in a place. */
const NO_PLACE: ReadonlySet<string | undefined> = new Set([
  "ENOENT",
  "ENOTDIR",
  "EACCES",
  "EPERM",
  "EROFS",
]);

/**
 * The state of before, or an empty one. Where the place was not asked for and cannot be had, the
 * daemon runs without a memory, and says so: it is of use all the same. Not where something to
 * remember may be there, nor where it is only for now that nothing can be written.
 * @throws `already_exists`, `permission_denied`, `state_unusable` or `io`
 */
export function openMemory(options: DaemonOptions, runtimeFolder: string, log: TargetLog): State {
  const { control, env, ephemeral, stateDir } = options;
  const hint = "start with another --state-dir, or with --ephemeral to keep nothing";
  if (ephemeral === true) return ephemeralState(runtimeFolder);
  if (stateDir !== undefined) {
    try {
      return openState([stateDir]);
    } catch (error) {
      throw hinted(error, hint);
    }
  }
  if (control.kind === "tcp" && control.port === 0) {
    log.info("run", "remembering nothing: the port is another one next time", {
      hint: "--state-dir DIR",
    });
    return ephemeralState(runtimeFolder);
  }
  try {
    return openState(stateFolders(control, env));
  } catch (error) {
    if (!hasNoPlace(error) || mayHaveState(control, env)) throw hinted(error, hint);
    log.warn("run", "remembering nothing: the state has no place", {
      error: messageChain(error).join(": "),
      hint: "--state-dir DIR",
    });
    return ephemeralState(runtimeFolder);
  }
}

/** Whether an error says that there is no place for a state, by the environment or the system. */
function hasNoPlace(error: unknown): boolean {
  if (!(error instanceof OrchestratorError)) return false;
  if (error.code === "misuse") return true;
  let cause: unknown = error;
  while (cause instanceof Error && systemCode(cause) === undefined) cause = cause.cause;
  return error.code === "io" && NO_PLACE.has(systemCode(cause));
}

/** Whether there may be something to remember: it is not passed over. */
function mayHaveState(control: Address, env: DaemonOptions["env"]): boolean {
  let folders: readonly string[];
  try {
    folders = stateFolders(control, env);
  } catch {
    return false; // the environment names no place
  }
  return mayBeThere(join(folders.at(-1) as string, "state.db"));
}

/**
 * Ends what a killed daemon has left, before anything is started again.
 * @returns how the one before has ended
 */
export async function takeOver(
  store: Store,
  instances: readonly StoredInstance[],
  host: Host,
  log: TargetLog,
): Promise<"none" | "stopped" | "killed"> {
  const former = store.get("run_id");
  const wasStopped = store.get("ended") === "stopped";
  if (former !== undefined && !wasStopped) {
    store.skipEvents();
    const runs = instances.flatMap(({ run }) => run ?? []);
    const left = await recover(host, { runId: former, runs, bootId: bootId() }, KILL_WAIT_MS);
    if (left.length > 0) {
      log.error("run", "cannot end what the daemon of before has started", {
        left: formatProcesses(left),
      });
    }
  }
  return former === undefined ? "none" : wasStopped ? "stopped" : "killed";
}

/** Remembers who runs, so that a successor finds what this daemon leaves if it is killed. @throws `io` */
export function claimState(store: Store, runId: string, log: TargetLog): void {
  for (const [typeName, from, to] of store.respellLinks()) {
    log.warn("run", "a link of before leads where another one does, and is left out", {
      type: typeName,
      ...(from === "" ? {} : { from }),
      to,
    });
  }
  store.set("run_id", runId);
  store.set("ended", "no");
  store.commit();
}

/** Remembers that it has ended as it was told to. */
export function closeMemory(state: State, log: TargetLog): void {
  try {
    state.store.set("ended", "stopped");
    state.close();
  } catch (error) {
    log.error("run", "cannot write the state", { error: messageChain(error).join(": ") });
  }
}
