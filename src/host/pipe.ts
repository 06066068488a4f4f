// A door: the pipes that programs print to.
//
// What Bun makes for them is a pair of sockets, and nobody can open `/dev/stdout` or `/dev/stderr` where
// that is a socket, as many a shell script does. Pipes are the C library's; where Bun cannot call that,
// sockets have to do.

import { ptr } from "bun:ffi";
import { closeSync, fchmodSync } from "node:fs";

import { MAX_WIDE_PIPES, WIDE_PIPE_BYTES } from "../limits.ts";
import { openLibc } from "./libc.ts";

// pipe(2), fcntl(2), in the numbers of x86-64 and arm64
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const F_SETFL = 4;
const F_SETPIPE_SZ = 1031;

/**
 * A program that has become another user may open it anew as well. Only who has it can: the way there
 * is `/proc/PID/fd`, which is closed to others.
 */
const MODE = 0o622;

/** Reads what somebody prints. */
export interface OutputReader {
  /** Settles with what is there, as soon as there is some; the bytes are the caller's to keep. */
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
  /** Stops reading, and lets go of the descriptor. */
  cancel(): Promise<void>;
}

/** A pipe with one end in a reader, which never keeps anybody waiting. */
export interface Pipe {
  /** Holds a descriptor until the output ends, or until it is cancelled. */
  readonly reader: OutputReader;
  /** The descriptor of the other end, which is the caller's to close. No program inherits it by itself. */
  readonly end: number;
}

let open: (() => Pipe | undefined) | undefined;

/**
 * Makes a pipe; undefined where there is no way to.
 * @throws the system's error if there are no descriptors left
 */
export function openPipe(): Pipe | undefined {
  open ??= findPipes();
  return open();
}

function findPipes(): () => Pipe | undefined {
  const libc = openLibc({
    pipe2: { args: ["ptr", "i32"], returns: "i32" },
    fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  });
  if (libc === undefined) return () => undefined;
  const ends = new Int32Array(2);
  let wide = 0;
  return () => {
    if (libc.pipe2(ptr(ends), O_CLOEXEC) !== 0) return undefined; // Bun's own way tells why, or has one
    const [from, end] = ends as unknown as [number, number];
    try {
      libc.fcntl(from, F_SETFL, O_NONBLOCK);
      fchmodSync(end, MODE);
      const isWide = wide < MAX_WIDE_PIPES && libc.fcntl(from, F_SETPIPE_SZ, WIDE_PIPE_BYTES) >= 0;
      const reader = Bun.file(from).stream().getReader();
      if (isWide) {
        wide++;
        const narrow = (): void => void wide--;
        reader.closed.then(narrow, narrow);
      }
      return { reader, end };
    } catch (error) {
      closeSync(end);
      throw error;
    } finally {
      closeSync(from); // the reader has a descriptor of its own
    }
  };
}
