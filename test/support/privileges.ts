// A folder that this process may not look into, also where it is root's.

import { chmodSync } from "node:fs";

import { openLibc } from "../../src/host/libc.ts";

const NOBODY = 65_534;

/** Runs something while nothing below a folder can be reached, whoever we are. */
export function withoutPrivileges(closed: string, body: () => void): void {
  const isRoot = process.getuid?.() === 0;
  const libc = isRoot
    ? openLibc({ setresuid: { args: ["u32", "u32", "u32"], returns: "i32" } })
    : undefined;
  if (isRoot && libc === undefined) throw new Error("root sees everything, and there is no libc");
  chmodSync(closed, 0o000);
  libc?.setresuid(NOBODY, NOBODY, 0); // `access` asks for the real user, all others for the effective
  try {
    body();
  } finally {
    libc?.setresuid(0, 0, 0);
    chmodSync(closed, 0o700);
  }
}
