// A folder that this process may not look into, also where it is root's.

import { chmodSync, chownSync } from "node:fs";

import { openLibc } from "../../src/host/libc.ts";

const NOBODY = 65_534;

/**
 * Runs something while nothing below a folder can be reached, whoever we are; the folder is ours, or
 * root's if it is asked for.
 */
export function withoutPrivileges(closed: string, body: () => void, isRoots = false): void {
  const isRoot = process.getuid?.() === 0;
  const libc = isRoot
    ? openLibc({ setresuid: { args: ["u32", "u32", "u32"], returns: "i32" } })
    : undefined;
  if (isRoot && libc === undefined) throw new Error("root sees everything, and there is no libc");
  chmodSync(closed, 0o000);
  if (isRoot && !isRoots) chownSync(closed, NOBODY, NOBODY);
  libc?.setresuid(NOBODY, NOBODY, 0); // `access` asks for the real user, all others for the effective
  try {
    body();
  } finally {
    libc?.setresuid(0, 0, 0);
    if (isRoot) chownSync(closed, 0, 0);
    chmodSync(closed, 0o700);
  }
}
