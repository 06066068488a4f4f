// What the system says about a process: the processor time it took, the memory it holds.

import { readFileSync } from "node:fs";

/** Of Linux, on every machine that Bun runs on. */
const TICK_MS = 10;

/** Processor time that a process and its threads have taken, in milliseconds. */
export function processorMs(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS; // utime and stime
}

/** How often the main thread of a process has gone to sleep since it began, each time to be woken again. */
export function sleeps(pid: number): number {
  const text = readFileSync(`/proc/${pid}/task/${pid}/status`, "latin1");
  return Number(/^voluntary_ctxt_switches:\s+([0-9]+)$/m.exec(text)?.[1]);
}

/** Resident size in MiB. */
export function residentMiB(pid: number): number {
  const text = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmRSS:\s+([0-9]+) kB$/m.exec(text)?.[1]) / 1024;
}
