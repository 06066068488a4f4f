// What users write: files, read whole, and words; refused where they are not text.

import { isUtf8 } from "node:buffer";
import { readFileSync, statSync } from "node:fs";

import { OrchestratorError } from "../errors.ts";
import { MAX_MANIFEST_LENGTH } from "../limits.ts";

/** The text of a file in UTF-8. @throws what the system says, or that the bytes are something else */
export type ReadText = (path: string) => string;

/** A unit of text takes at most three bytes. */
const MAX_BYTES = 3 * MAX_MANIFEST_LENGTH;

/**
 * Reads files for `use`, which is called again when a pipe that it has asked for was read: that may have
 * to wait for its writer, and whoever waits must hear Ctrl-C.
 */
export async function withTexts<T>(use: (read: ReadText) => T | Promise<T>): Promise<T> {
  const pipes = new Map<string, PromiseSettledResult<Buffer>>();
  for (;;) {
    const unread = new Set<string>();
    const read = (path: string): string => {
      const found = pipes.get(path);
      if (found?.status === "rejected") throw found.reason;
      if (found !== undefined) return decode(found.value);
      const stat = statSync(path);
      if (stat.isFIFO()) {
        unread.add(path);
        throw new Error("it is not read yet");
      }
      // A film that was named by mistake is not read first.
      if (stat.size > MAX_BYTES) throw tooLong();
      return decode(readFileSync(path));
    };
    const [result] = await Promise.allSettled([(async () => use(read))()]);
    if (unread.size === 0) {
      if (result.status === "rejected") throw result.reason;
      return result.value;
    }
    for (const path of unread) {
      const [text] = await Promise.allSettled([readPipe(path)]);
      pipes.set(path, text);
    }
  }
}

/** Everything until its writers are gone. */
async function readPipe(path: string): Promise<Buffer> {
  const { open } = await import("node:fs/promises");
  const pipe = await open(path);
  try {
    const chunks: Buffer[] = [];
    for (let length = 0; length <= MAX_BYTES;) {
      const chunk = Buffer.alloc(64 * 1024);
      const { bytesRead } = await pipe.read(chunk);
      if (bytesRead === 0) return Buffer.concat(chunks);
      chunks.push(chunk.subarray(0, bytesRead));
      length += bytesRead;
    }
    throw tooLong();
  } finally {
    await pipe.close();
  }
}

function decode(bytes: Buffer): string {
  // Put in the place of a byte, a replacement character would become part of a path or of a secret.
  if (!isUtf8(bytes)) throw new Error("it is not valid UTF-8");
  return bytes.toString();
}

function tooLong(): Error {
  return new Error(`it is longer than ${MAX_MANIFEST_LENGTH} characters`);
}

/**
 * The engine puts U+FFFD in the place of bytes that are no UTF-8, and a program would be given that.
 * @throws `misuse` if it has done so to the words of this process
 */
export function checkOwnWords(): void {
  if (isUtf8(readFileSync("/proc/self/cmdline"))) return;
  throw new OrchestratorError("misuse", "Cannot use the arguments: they are not valid UTF-8");
}
