// A door: lines to a file descriptor, for the log on standard error.

import { constants, fstatSync, openSync, writeSync } from "node:fs";

import { systemCode } from "../errors.ts";
import { LOG_RETRY_MS, MAX_LOG_BACKLOG_BYTES } from "../limits.ts";

/**
 * A descriptor of our own for a pipe or a terminal, which never waits for its reader; others keep
 * their way of using theirs. For a file or a socket, the descriptor itself.
 */
function withoutWaiting(fd: number): number {
  const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
  try {
    const kind = fstatSync(fd);
    if (!kind.isFIFO() && !kind.isCharacterDevice()) return fd;
    return openSync(`/proc/self/fd/${fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
  } catch {
    return fd; // closed, or not ours to open: writing will tell
  }
}

/** Why something cannot be written now, and may be later: no reader, no room. */
const LATER: ReadonlySet<string | undefined> = new Set(["EAGAIN", "ENOSPC", "EDQUOT"]);

/** Writes lines to a file descriptor without ever waiting for its reader. */
export class LineWriter {
  readonly #fd: number;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #dropped = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #isBroken = false;

  constructor(fd: number) {
    this.#fd = withoutWaiting(fd);
  }

  /** Takes a line with its newline; beyond a bound it is dropped, and counted in a later line. */
  write(line: string): void {
    if (this.#isBroken) return;
    if (this.#waitingBytes > MAX_LOG_BACKLOG_BYTES) {
      this.#dropped++;
      return;
    }
    this.#put(line);
    if (this.#retry === undefined) this.flush();
  }

  /** Writes what the reader takes now; goes on later if something is left. */
  flush(): void {
    if (this.#retry !== undefined) clearTimeout(this.#retry);
    this.#retry = undefined;
    while (this.#waiting.length > 0 && !this.#isBroken) {
      const [first] = this.#waiting as [Buffer];
      const bytes = this.#waiting.length === 1 ? first : Buffer.concat(this.#waiting);
      const written = this.#write(bytes);
      this.#waitingBytes -= written;
      this.#waiting = written < bytes.length ? [bytes.subarray(written)] : [];
      if (written === bytes.length && this.#dropped > 0) {
        this.#put(`[${this.#dropped} log lines dropped: there was no room for them]\n`);
        this.#dropped = 0;
      } else if (written < bytes.length) {
        this.#retry = setTimeout(() => this.flush(), LOG_RETRY_MS);
        this.#retry.unref();
        return;
      }
    }
  }

  #put(line: string): void {
    const bytes = Buffer.from(line);
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
  }

  #write(bytes: Buffer): number {
    try {
      return writeSync(this.#fd, bytes);
    } catch (error) {
      // EPIPE and the like: the reader is gone for good, and there is nobody to tell.
      this.#isBroken = !LATER.has(systemCode(error));
      return 0;
    }
  }
}
