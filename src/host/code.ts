// A door: what the engine does with this program's own code, compiling it and keeping it in memory.

import { readFile } from "node:fs/promises";

import { openLibc } from "./libc.ts";

// madvise(2): madvise(address, length, MADV_DONTNEED)
const MADV_DONTNEED = 4;

/** One mapping of /proc/self/smaps: its first line, then `Name: N kB` lines, of which one is Anonymous. */
const MAPPING =
  /^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ \S+ +(\/.*)\n(?:[A-Z].*\n)*?Anonymous: +(\d+) kB$/gm;

/**
 * Lets the engine compile as soon as it usually does. The executable starts with a tenth of that
 * eagerness (`--compile-jit-policy` of `bun run build`): most of what is run once is not worth it.
 */
export function compileAsUsual(): void {
  Bun.unsafe.setJITPolicy(1);
}

/**
 * Lets go of all code of the running program: starting takes far more of the engine's code than
 * running does. What is given back is read from the file again, page by page, when it is needed; that
 * costs a fault each, and nothing is lost. What somebody has changed in memory, a debugger with its
 * breakpoints for example, is left alone. Returns how many bytes of code there are, 0 where that
 * cannot be done.
 */
export async function releaseCode(): Promise<number> {
  const libc = openLibc({ madvise: { args: ["u64", "u64", "i32"], returns: "i32" } });
  if (libc === undefined) return 0;
  let released = 0;
  for (const [, from, to, path, changed] of (await readFile("/proc/self/smaps", "utf8")).matchAll(
    MAPPING,
  )) {
    if (path !== process.execPath || changed !== "0") continue;
    const [start, end] = [BigInt(`0x${from}`), BigInt(`0x${to}`)];
    if (libc.madvise(start, end - start, MADV_DONTNEED) === 0) released += Number(end - start);
  }
  return released;
}
