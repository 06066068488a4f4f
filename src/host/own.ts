// A door: what the system tells of this process itself.

import { ptr } from "bun:ffi";
import { closeSync, openSync, readFileSync } from "node:fs";

import { openLibc } from "./libc.ts";

const SIGCHLD = 17;
/** sigprocmask(2) */
const SIG_SETMASK = 2;
/** A `sigset_t`. */
const SIGNAL_SET_BYTES = 128;

/** How many file descriptors this process may have: its soft limit, which Bun raises to the hard one. */
export function descriptorLimit(): number {
  const limits = readFileSync("/proc/self/limits", "utf8");
  const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
  return soft === undefined || soft === "unlimited" ? Number.POSITIVE_INFINITY : Number(soft);
}

/** The number that the next file descriptor gets: the lowest that is free. @throws if there is none */
export function nextDescriptor(): number {
  const fd = openSync("/dev/null", "r");
  closeSync(fd);
  return fd;
}

/** Whether this process was told to ignore a signal, as `nohup` does with 1. */
export function isSignalIgnored(status: string, signal: number): boolean {
  const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
  return ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}

/** What the system tells of this thread, which starts all programs: the mask of signals is a thread's. */
export function ownStatus(): string {
  return readFileSync("/proc/thread-self/status", "utf8");
}

/**
 * Takes back what whoever started this process has done to signals, as far as it would harm programs.
 * Where SIGCHLD is ignored, the system forgets how they have ended; and they inherit which signals
 * are blocked, so that a stop would not reach them.
 */
export function restoreSignals(status: string): void {
  if (isSignalIgnored(status, SIGCHLD)) process.on("SIGCHLD", () => {});
  if (/^SigBlk:\s*0*$/m.test(status)) return;
  const libc = openLibc({ sigprocmask: { args: ["i32", "ptr", "ptr"], returns: "i32" } });
  libc?.sigprocmask(SIG_SETMASK, ptr(new Uint8Array(SIGNAL_SET_BYTES)), null);
}
