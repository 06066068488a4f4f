// What is said when an instance cannot be started, stopped or removed as it stands.

import { OrchestratorError } from "../errors.ts";
import type { Action, State } from "../lifecycle.ts";
import { type Exit, formatExit, type InstanceId } from "../model.ts";

export type Verb = "start" | "stop" | "remove";

/** How an instance stands. */
export interface Standing {
  readonly id: InstanceId;
  readonly pid: number | undefined;
  readonly state: State;
  readonly exit: Exit | undefined;
  readonly reason: string | undefined;
}

/** The refusal that an action of the lifecycle stands for. */
export function refusal(verb: Verb, action: Action, standing: Standing): OrchestratorError {
  return new OrchestratorError(
    "wrong_state",
    `Cannot ${verb} instance "${standing.id}": ${reasonOf(verb, action, standing)}`,
  );
}

function reasonOf(verb: Verb, action: Action, { pid, state, exit, reason }: Standing): string {
  const isRemoval = verb === "remove";
  switch (action) {
    case "refuseRunning":
      return isRemoval
        ? `it is running (pid ${pid}); stop it first`
        : `already running (pid ${pid})`;
    case "refuseStopping":
      return `it is stopping (pid ${pid})`;
    default:
      if (state === "failed") return `it is not running (failed: ${reason})`;
      return `it is not running${exit === undefined ? "" : ` (last exit: ${formatExit(exit)})`}`;
  }
}

/** The refusal of a start that the system has refused; anything else is a defect. */
export function cannotStart(id: InstanceId, error: unknown): OrchestratorError {
  const subject = `Cannot start instance "${id}"`;
  if (!(error instanceof OrchestratorError)) {
    return new OrchestratorError("internal", subject, { cause: error });
  }
  return new OrchestratorError(error.code, `${subject}: ${error.message}`, { cause: error.cause });
}
