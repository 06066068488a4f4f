// A file on its way to a daemon: its size and hash, its pieces, and what may be wrong with it.
//
// Is handed the file; opens nothing and sends nothing.

import { OrchestratorError } from "../errors.ts";
import { MAX_UPLOAD_BYTES, UPLOAD_CHUNK_BYTES } from "../limits.ts";

/**
 * Reads a regular file once; returns its size and its SHA-256 in lower-case hexadecimal.
 * @throws `io` if it cannot be read or is too large
 */
export async function digest(file: Blob, name: string): Promise<{ length: number; hash: string }> {
  const hasher = new Bun.CryptoHasher("sha256");
  let length = 0;
  try {
    const stat = await (file as Partial<Bun.BunFile>).stat?.();
    if (stat !== undefined && !stat.isFile()) throw new Error("it is not a regular file");
    const size = stat?.size ?? file.size;
    if (size > MAX_UPLOAD_BYTES) {
      throw new Error(`it has ${size} bytes, and the limit is ${MAX_UPLOAD_BYTES}`);
    }
    for await (const chunk of pieces(file)) {
      hasher.update(chunk);
      length += chunk.length;
      if (length > MAX_UPLOAD_BYTES) throw new Error("it is growing beyond all limits");
    }
  } catch (error) {
    throw unreadable(name, error);
  }
  return { length, hash: hasher.digest("hex") };
}

/** Its bytes, cut to what one frame of an upload carries. */
export async function* pieces(file: Blob): AsyncGenerator<Uint8Array, void, void> {
  for await (const chunk of file.stream()) {
    for (let start = 0; start < chunk.length; start += UPLOAD_CHUNK_BYTES) {
      yield chunk.subarray(start, start + UPLOAD_CHUNK_BYTES);
    }
  }
}

export function unreadable(name: string, cause: unknown): OrchestratorError {
  return new OrchestratorError("io", `Cannot read ${JSON.stringify(name)}`, { cause });
}

export function changed(name: string): OrchestratorError {
  const message = `Cannot upload ${JSON.stringify(name)}: it changed while it was sent`;
  return new OrchestratorError("upload_failed", message);
}
