// A door: what the system tells of this process itself.

import { closeSync, openSync, readFileSync } from "node:fs";

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
