// A door: standard output. Writes to it, and notices when nobody reads it any more.

import { OrchestratorError, systemCode } from "../errors.ts";

/** Pause between two looks at a standard output of whose end nobody tells, such as a socket. */
const PIPE_POLL_MS = 500;

/** Nobody reads standard output any more: whoever writes ends quietly. */
export class ClosedPipe extends Error {}

/**
 * Whether standard output was closed when this process began: the runtime has opened `/dev/null` in
 * its place, to be closed on exec, as nobody else's is.
 */
async function outputWasClosed(): Promise<boolean> {
  const O_CLOEXEC = 0o2000000;
  const [output, nothing] = [Bun.file("/proc/self/fd/1"), Bun.file("/dev/null")];
  if (output.lastModified !== nothing.lastModified) return false; // to read takes much longer
  try {
    const found = await Bun.file("/proc/self/fdinfo/1").text();
    const flags = /^flags:\s*([0-7]+)$/m.exec(found)?.[1] ?? "0";
    return (Number.parseInt(flags, 8) & O_CLOEXEC) !== 0;
  } catch {
    return false; // where there is no such file, writing tells what it can
  }
}

/**
 * Writes to standard output; settles when the system has taken it.
 * @throws `ClosedPipe` if nobody reads it, `io` if it cannot be written for another reason
 */
export async function writeOutput(data: string | Uint8Array): Promise<void> {
  if (await outputWasClosed()) throw unwritable(new Error("standard output is closed"));
  try {
    await Bun.write(Bun.stdout, data);
  } catch (cause) {
    if (systemCode(cause) === "EPIPE") throw new ClosedPipe();
    throw unwritable(cause);
  }
}

function unwritable(cause: unknown): OrchestratorError {
  return new OrchestratorError("io", "Cannot write output", { cause });
}

/**
 * Resolves when standard output has lost its reader, as far as the system can tell. A command that
 * follows something silent would otherwise go on for ever behind `head -1`.
 */
export async function outputClosed(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { fstatSync } = await import("node:fs");
  const stat = fstatSync(1);
  if (!stat.isFIFO() && !stat.isSocket()) return promise; // a terminal or a file stays
  const isTold = stat.isFIFO() && (await pipeEnd());
  const hasReader = await readerTest();
  if (isTold && hasReader?.() !== true) return;
  if (hasReader !== undefined) {
    setInterval(() => hasReader() || resolve(), PIPE_POLL_MS).unref();
  }
  await promise;
}

/**
 * Resolves with true when the pipe that is standard output has lost its reader, with false if the system
 * does not tell.
 */
async function pipeEnd(): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const { constants, openSync } = await import("node:fs");
  try {
    // Opened anew, so that its flags are not those of everybody who writes there.
    const fd = openSync("/proc/self/fd/1", constants.O_WRONLY | constants.O_NONBLOCK);
    // No socket, and nothing is sent: the runtime closes what the system says is broken.
    const handlers = { data: () => {}, close: () => resolve(true) };
    (await Bun.connect({ fd, socket: handlers })).unref();
  } catch {
    return false;
  }
  return promise;
}

/** A way to see whether standard output has a reader; undefined if the system does not tell. */
async function readerTest(): Promise<(() => boolean) | undefined> {
  try {
    const [{ ptr }, { openLibc }] = await Promise.all([
      import("bun:ffi"),
      import("../host/libc.ts"),
    ]);
    const libc = openLibc({ poll: { args: ["ptr", "u64", "i32"], returns: "i32" } });
    if (libc === undefined) return undefined; // the next write will tell
    const POLLERR = 0x08;
    const POLLHUP = 0x10;
    const entry = Buffer.alloc(8); // struct pollfd: i32 fd, i16 events, i16 revents
    entry.writeInt32LE(1, 0);
    return () => {
      entry.writeInt16LE(0, 6);
      libc.poll(ptr(entry), 1, 0);
      return (entry.readInt16LE(6) & (POLLERR | POLLHUP)) === 0;
    };
  } catch {
    return undefined; // without the system's help, the next write will tell
  }
}
