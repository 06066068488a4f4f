// The one error class of the orchestrator, its closed list of codes, and the chain of causes.
//
// A message says what could not be done, to what, and why: `Cannot start instance "…": already
// running (pid 4711)`. A cause adds one sentence; the chain travels as a list, outermost first.

/** What kind of refusal or failure it is. The list is normative in `docs/protocol.md`. */
export const ERROR_CODES = [
  "bad_request", // not JSON, not a known request, or a field of the wrong form
  "not_found", // no such instance or link
  "already_exists", // the id is registered already
  "wrong_state", // running, not running, or stopping, and the request needs it otherwise
  "limit_exceeded", // a bound of limits.ts
  "cannot_run", // the operating system refused to start the program
  "not_configured", // needs an option that the daemon was started without
  "upload_failed", // bytes missing, wrong hash, or not to be written
  "stop_failed", // processes are left after SIGKILL
  "permission_denied", // the peer may not do that
  "unreachable", // nobody answers on the socket
  "timed_out", // no answer in time
  "misuse", // the command line is wrong
  "state_unusable", // the state on disk is damaged, newer, or not ours
  "io", // a file or socket operation failed
  "internal", // a defect of the orchestrator
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** What a daemon says whose state has no room; the command line knows it by these words. */
export const NO_ROOM_FOR_STATE = "the disk is full, or the state too large";

/** A refusal or failure that is meant to be read by a person. */
export class OrchestratorError extends Error {
  override readonly name = "OrchestratorError";
  readonly code: ErrorCode;
  /** What to try next, for a person at a terminal. Not sent over a socket. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown; hint?: string }) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options?.hint;
  }
}

/** A refusal that says nothing of what to try next says this; other errors are left as they are. */
export function hinted(error: unknown, hint: string): unknown {
  if (!(error instanceof OrchestratorError) || error.hint !== undefined) return error;
  return new OrchestratorError(error.code, error.message, { cause: error.cause, hint });
}

/** The messages of an error and its causes, outermost first, each one sentence without newlines. */
export function messageChain(error: unknown): string[] {
  const chain: string[] = [];
  for (let current = error; current !== undefined && current !== null && chain.length < 16;) {
    chain.push(describe(current));
    current = current instanceof Error ? current.cause : undefined;
  }
  return chain;
}

/** The code of an error; anything that is not an `OrchestratorError` is a defect: `internal`. */
export function errorCode(error: unknown): ErrorCode {
  return error instanceof OrchestratorError ? error.code : "internal";
}

/** The system's name of an error (`ENOENT`), if it has one. */
export function systemCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return oneLine(String(error));
  const errno = (error as { errno?: unknown }).errno;
  const code = systemCode(error);
  if (code === "ENOTFOUND") return "no such host"; // its errno is not the system's
  if (code === "ENOSPC") return "the disk is full"; // as the state says, which learns it from SQLite
  if (code === "EISDIR") return "it is a folder";
  if (code !== undefined && typeof errno === "number" && errno !== 0) {
    // Loaded when something has gone wrong: it takes longer than most commands do.
    const { getSystemErrorMessage } = require("node:util") as typeof import("node:util");
    return getSystemErrorMessage(-Math.abs(errno));
  }
  return oneLine(error.message);
}

function oneLine(text: string): string {
  const lines = text.split(/\r\n|\r|\n/).map((line) => line.trim());
  return lines.filter((line) => line !== "").join("; ");
}

/** Throws if a condition that the code relies on does not hold: a defect, never bad input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new OrchestratorError("internal", `Defect: ${message}`);
}
