// A door: functions of the C library that Bun has no name for.

import { dlopen, type FFIFunction } from "bun:ffi";

/** The C library by the names it has: glibc's, musl's, that of macOS (for the command line). */
const LIBRARIES = ["libc.so.6", "libc.so", "libSystem.dylib"];

/** The functions that were asked for, or undefined where there is no such library. */
export function openLibc<Functions extends Record<string, FFIFunction>>(
  functions: Functions,
): ReturnType<typeof dlopen<Functions>>["symbols"] | undefined {
  for (const library of LIBRARIES) {
    try {
      return dlopen(library, functions).symbols;
    } catch {
      // the next name, or none
    }
  }
  return undefined;
}
