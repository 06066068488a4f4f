// Files that users write: read whole, and refused where they are not text.

import { isUtf8 } from "node:buffer";
import { readFileSync } from "node:fs";

/** The text of a file in UTF-8. @throws what the system says, or that the bytes are something else */
export function readTextFile(path: string): string {
  const bytes = readFileSync(path);
  // Put in the place of a byte, a replacement character would become part of a path or of a secret.
  if (!isUtf8(bytes)) throw new Error("it is not valid UTF-8");
  return bytes.toString();
}
