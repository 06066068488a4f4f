// Why a client has no answer, as errors: refused, nobody there, silent, or a stranger.

import { type Address, formatAddress } from "../address.ts";
import { ERROR_CODES, type ErrorCode, OrchestratorError, systemCode } from "../errors.ts";
import type { Response } from "../protocol.ts";

/** The error that a refusal of the daemon stands for, with its causes. */
export function refused(response: Extract<Response, { Err: unknown }>): OrchestratorError {
  const [message = "Cannot finish request: refused without a reason", ...causes] = response.Err;
  let cause: Error | undefined;
  for (const text of causes.reverse()) {
    cause = new Error(text, cause === undefined ? undefined : { cause });
  }
  const known = ERROR_CODES.find((code: ErrorCode) => code === response.code);
  // Before it knows the dialect, a daemon sends no code.
  const isTurnedAway = message.startsWith("Cannot serve this connection");
  return new OrchestratorError(
    known ?? (isTurnedAway ? "permission_denied" : "internal"),
    message,
    { cause },
  );
}

/** The connection could not be made, or has ended. */
export function unreachable(address: Address, error: unknown): OrchestratorError {
  const socket = formatAddress(address);
  const message = `Cannot reach the orchestrator at ${JSON.stringify(socket)}`;
  const code = systemCode(error);
  if (code === "EACCES" || code === "EPERM") {
    return new OrchestratorError("permission_denied", message, {
      cause: error,
      hint: "it serves the user who started it",
    });
  }
  const unknownHost = code === "ENOTFOUND" || code?.startsWith("EAI_");
  return new OrchestratorError("unreachable", message, {
    cause: unknownHost ? new Error("no such host") : error,
    hint: `start one there with "veecle-orchestrator daemon --control-socket ${socket}"`,
  });
}

/** A deadline has passed; `what` did not happen: "no answer". */
export function silent(address: Address, what: string, afterMs: number): OrchestratorError {
  const socket = JSON.stringify(formatAddress(address));
  return new OrchestratorError("timed_out", `Cannot reach the orchestrator at ${socket}`, {
    cause: new Error(`${what} within ${afterMs / 1000} s`),
    hint: "it is stopped or overloaded, or no orchestrator: look at its log, and at its process",
  });
}

/** An orchestrator listens there, and none of ours: it knows the protocol of the existing one only. */
export function linesOnly(address: Address): OrchestratorError {
  const cause =
    "it is the existing Veecle OS orchestrator, which does not know this program's protocol";
  const socket = JSON.stringify(formatAddress(address));
  return new OrchestratorError("io", `Cannot talk to the orchestrator at ${socket}`, {
    cause: new Error(cause),
    hint: "use its own command line, or start the daemon of this program in its place",
  });
}

/** What came is no answer of an orchestrator, or none of a version that we know. */
export function incomprehensible(address: Address, cause: unknown): OrchestratorError {
  const socket = JSON.stringify(formatAddress(address));
  return new OrchestratorError("io", `Cannot understand who answers at ${socket}`, {
    cause,
    hint: "is this the control socket of an orchestrator?",
  });
}

/** Whoever answers has not shown a certificate that we trust, or has not taken ours. */
export function untrusted(address: Address, error: unknown): OrchestratorError {
  const socket = JSON.stringify(formatAddress(address));
  const cause = error instanceof Error ? new Error(untrustedWords(error)) : undefined;
  return new OrchestratorError("permission_denied", `Cannot trust who answers at ${socket}`, {
    cause,
    hint: "--tls-ca names who has signed its certificate; --tls-cert and --tls-key are what it may ask for",
  });
}

function untrustedWords(error: Error): string {
  if (error.message.includes("CERTIFICATE_REQUIRED"))
    return "it takes only who shows a certificate";
  return systemCode(error) ?? error.message;
}
