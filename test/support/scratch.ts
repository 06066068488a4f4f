// Folders for tests, with paths that are short enough for the sockets in them.

import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A socket's whole path has 107 bytes, and those of instances are long. */
const MAX_BASE_LENGTH = 32;

/** Makes a new folder, where TMPDIR is if that is short, and in `/tmp` otherwise. */
export function scratch(prefix: string = "vo-"): string {
  const base = tmpdir();
  return mkdtempSync(join(base.length > MAX_BASE_LENGTH ? "/tmp" : base, prefix));
}
