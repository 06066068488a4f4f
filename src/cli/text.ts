// What users write: files, read whole, and words; refused where they are not text.

import { isUtf8 } from "node:buffer";
import { readFileSync, statSync } from "node:fs";

import { OrchestratorError } from "../errors.ts";
import { MAX_MANIFEST_LENGTH } from "../limits.ts";

/** The text of a file in UTF-8. @throws what the system says, or that the bytes are something else */
export function readTextFile(path: string): string {
  // A film that was named by mistake is not read first. A unit of text takes at most three bytes.
  if (statSync(path).size > 3 * MAX_MANIFEST_LENGTH)
    throw new Error(`it is longer than ${MAX_MANIFEST_LENGTH} characters`);
  const bytes = readFileSync(path);
  // Put in the place of a byte, a replacement character would become part of a path or of a secret.
  if (!isUtf8(bytes)) throw new Error("it is not valid UTF-8");
  return bytes.toString();
}

/**
 * The engine puts U+FFFD in the place of bytes that are no UTF-8, and a program would be given that.
 * @throws `misuse` if it has done so to the words of this process
 */
export function checkOwnWords(): void {
  if (isUtf8(readFileSync("/proc/self/cmdline"))) return;
  throw new OrchestratorError("misuse", "Cannot use the arguments: they are not valid UTF-8");
}
