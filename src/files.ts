// A door: locks, private folders, uploaded binaries, and the log on standard error.

import { Database } from "bun:sqlite";
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";

import { OrchestratorError, systemCode } from "./errors.ts";
import {
  LOG_RETRY_MS,
  MAX_LOG_BACKLOG_BYTES,
  MAX_TOKEN_BYTES,
  MIN_TOKEN_LENGTH,
} from "./limits.ts";

/** A lock that ends with this process, however it ends. */
export interface FileLock {
  release(): void;
}

/** The locks that this process holds: one that nothing refers to would end when it is collected. */
const heldLocks = new Set<Database>();

/**
 * Takes the lock of a file, or returns undefined if another process holds it. The file is made if
 * need be and removed on release. SQLite holds the lock: Bun has no other that needs no FFI.
 * @throws `io` if the file cannot be made
 */
export function tryLock(path: string): FileLock | undefined {
  for (;;) {
    let database: Database | undefined;
    try {
      const mask = process.umask(0o177);
      try {
        database = new Database(path, { create: true });
      } finally {
        process.umask(mask);
      }
      database.run("PRAGMA journal_mode = MEMORY");
      database.run("BEGIN EXCLUSIVE");
    } catch (error) {
      database?.close();
      const code = (error as { code?: unknown }).code;
      if (code === "SQLITE_BUSY") return undefined;
      throw new OrchestratorError("io", `Cannot lock ${path}`, { cause: explainLock(error, path) });
    }
    // Another process may have removed the file between our open and our lock.
    if (statSync(path, { throwIfNoEntry: false }) === undefined) {
      database.close();
      continue;
    }
    const held = database;
    heldLocks.add(held);
    return {
      release: () => {
        if (!heldLocks.delete(held)) return;
        rmSync(path, { force: true });
        held.close();
      },
    };
  }
}

function explainLock(error: unknown, path: string): unknown {
  const folder = dirname(resolve(path));
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found === undefined) return new Error(`the folder ${folder} does not exist`);
  if (!found.isDirectory()) return new Error(`${folder} is not a folder`);
  if ((error as { code?: unknown }).code !== "SQLITE_CANTOPEN") return error;
  return new Error(`the folder ${folder} is not writable`, { cause: reasonAgainst(folder) });
}

/** Why nothing can be made in a folder, by the system's word; undefined if it does not say. */
function reasonAgainst(folder: string): unknown {
  try {
    accessSync(folder, constants.W_OK);
    return undefined;
  } catch (error) {
    return error;
  }
}

/** The process that holds a lock of `tryLock`, by the system's own list, if that is to be seen. */
export function lockHolder(path: string): number | undefined {
  try {
    const { ino } = statSync(path);
    const pid = new RegExp(` POSIX +ADVISORY +WRITE ([1-9][0-9]*) [0-9a-f:]+:${ino} `).exec(
      readFileSync("/proc/locks", "utf8"),
    )?.[1];
    return pid === undefined ? undefined : Number(pid);
  } catch {
    return undefined;
  }
}

/**
 * Reads a secret: one line in a file that is ours (or root's) and that nobody else may read.
 * @throws `permission_denied` if others may read it or it is a link; `io` if it cannot be read
 */
export function readSecret(path: string): string {
  const subject = `Cannot use the token file ${JSON.stringify(path)}`;
  const refuse = (reason: string, hint: string): OrchestratorError =>
    new OrchestratorError("permission_denied", `${subject}: ${reason}`, { hint });
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    if (systemCode(cause) === "ELOOP") throw refuse("it is a link", "name the file itself");
    throw new OrchestratorError("io", subject, {
      cause,
      hint: "make one with the command token new",
    });
  }
  try {
    const found = fstatSync(fd); // of what is open: a path may lead elsewhere by now
    if (!found.isFile()) throw refuse("it is not a file", "make one with the command token new");
    const own = process.getuid?.() ?? 0;
    if (found.uid !== own && found.uid !== 0)
      throw refuse(`it belongs to user ${found.uid}`, "it must be your own");
    if ((found.mode & 0o077) !== 0) throw refuse("others may read it", `chmod 600 ${path}`);
    const buffer = Buffer.alloc(MAX_TOKEN_BYTES + 1);
    const text = buffer.toString("utf8", 0, readSync(fd, buffer)).trim();
    if (
      text.length < MIN_TOKEN_LENGTH ||
      Buffer.byteLength(text) > MAX_TOKEN_BYTES ||
      /\s/.test(text)
    ) {
      throw refuse(
        `it is not one word of ${MIN_TOKEN_LENGTH} to ${MAX_TOKEN_BYTES} bytes`,
        "make one with the command token new",
      );
    }
    return text;
  } finally {
    closeSync(fd);
  }
}

/** Reads certificates or a key. @throws `io` if there are none to be read */
export function readPem(path: string): string {
  const subject = `Cannot use the file ${JSON.stringify(path)}`;
  const hint = "name a file that you may read, with lines of PEM";
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new OrchestratorError("io", subject, { cause, hint });
  }
  if (!text.includes("-----BEGIN ")) {
    throw new OrchestratorError("io", `${subject}: it is no PEM`, { hint });
  }
  return text;
}

/** What is another text whenever one of these files is another file, or has changed. */
export async function versionOf(paths: readonly string[]): Promise<string> {
  const { stat } = await import("node:fs/promises"); // few need it, and it takes its time
  const found = paths.map(async (path) => {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
  });
  return (await Promise.allSettled(found))
    .map((one) => (one.status === "fulfilled" ? one.value : systemCode(one.reason)))
    .join("\n");
}

/** Bytes that may still be written where a folder is. */
export function roomAt(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

/**
 * Takes room on a disk with a new file, of bytes that no file system keeps in less. Where there is no
 * such room it leaves nothing, and whoever needs it later does without.
 */
export function occupy(path: string, bytes: number): void {
  const noise = Buffer.alloc(bytes);
  const most = 64 * 1024; // at once
  for (let at = 0; at < bytes; at += most) crypto.getRandomValues(noise.subarray(at, at + most));
  try {
    writeFileSync(path, noise, { mode: 0o600, flag: "wx" });
    chmodSync(path, 0o600); // whatever the umask takes away
  } catch {
    rmSync(path, { force: true });
  }
}

/** Gives up what `occupy` has taken, if it has. */
export function vacate(path: string): void {
  rmSync(path, { force: true });
}

/** Makes a folder and those above it that are missing, with mode 0700 under any umask. @throws `io` */
export function makeFolders(path: string): void {
  const mask = process.umask(0o077);
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new OrchestratorError("io", `Cannot make the folder ${path}`, { cause: error });
  } finally {
    process.umask(mask);
  }
}

/**
 * Makes a folder with mode 0700, or accepts one of our own that has no looser mode.
 * @returns whether it was made
 * @throws `permission_denied` if it is a link, foreign, or open to others; `io` otherwise
 */
export function makePrivateFolder(path: string): boolean {
  const refuse = (reason: string): OrchestratorError =>
    new OrchestratorError("permission_denied", `Cannot use the folder ${path}: ${reason}`);
  try {
    mkdirSync(path, { mode: 0o700 });
    chmodSync(path, 0o700);
    return true;
  } catch (error) {
    if (systemCode(error) !== "EEXIST") {
      throw new OrchestratorError("io", `Cannot make the folder ${path}`, { cause: error });
    }
  }
  const found = lstatSync(path);
  if (found.isSymbolicLink()) throw refuse("it is a symbolic link");
  if (!found.isDirectory()) throw refuse("it is not a folder");
  if (found.uid !== process.getuid?.()) throw refuse(`it belongs to user ${found.uid}`);
  if ((found.mode & 0o077) !== 0) {
    throw refuse(
      `others may use it (mode ${(found.mode & 0o777).toString(8)}); chmod 700 mends it`,
    );
  }
  return false;
}

/** Whether there is something at a path that we may look at. */
export function isThere(path: string): boolean {
  return existsSync(path);
}

/**
 * Makes durable the bytes of a file, or the names in a folder. What may not be read is left to the
 * system.
 * @throws the system's error
 */
export function syncPath(path: string): void {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY);
  } catch (error) {
    if (systemCode(error) === "EACCES") return;
    throw error;
  }
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A private folder of this daemon alone: nobody else's, empty at first, gone at the end. */
export interface OwnFolder {
  readonly path: string;
  remove(): void;
}

/**
 * Takes the folder `name` under the first base where that is possible and `fits` says yes. What a
 * killed daemon left in it is removed; the folder of a living one is not touched.
 * @throws `io` or `permission_denied` if no base will do
 */
export function takeFolder(
  bases: readonly string[],
  name: string,
  fits: (path: string) => boolean,
): OwnFolder {
  let fault: unknown = new Error("the path would be too long for a socket");
  for (const base of bases) {
    for (let i = 0; i < 100; i++) {
      const path = join(base, i === 0 ? name : `${name}-${i}`);
      if (!fits(path)) break;
      try {
        makePrivateFolder(path);
        const lock = tryLock(join(path, "lock"));
        if (lock === undefined) continue;
        for (const entry of readdirSync(path)) {
          if (!entry.startsWith("lock"))
            rmSync(join(path, entry), { recursive: true, force: true });
        }
        return {
          path,
          remove: () => {
            lock.release();
            removeFolder(path);
          },
        };
      } catch (error) {
        fault = error;
        break;
      }
    }
  }
  throw new OrchestratorError("io", "Cannot make a folder for the sockets of instances", {
    cause: fault,
    hint: "set XDG_RUNTIME_DIR or TMPDIR to a short path that you may write to",
  });
}

/** A thread that was told to write into the folder may still do so, once: then it is not empty. */
function removeFolder(path: string): void {
  for (let isLast = false; ; isLast = true) {
    try {
      rmSync(path, { recursive: true, force: true });
      return;
    } catch (error) {
      if (isLast || systemCode(error) !== "ENOTEMPTY") throw error;
    }
  }
}

/** Whether somebody else's file stands at a path where we want a socket. */
export function isOtherFile(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found !== undefined && !found.isSocket();
}

/**
 * Whether a process listens on a Unix path, by the system's own list. For a socket that refuses: it
 * is stale, or its owner is too busy to accept, and a connection cannot tell which.
 */
export function isListening(path: string): boolean {
  const names = new Set([path, resolve(path)]);
  const listening = "00010000"; // flag __SO_ACCEPTCON
  return readFileSync("/proc/net/unix", "utf8")
    .split("\n")
    .some((line) => {
      const [, , , flags, , , , ...name] = line.split(" ").filter((word) => word !== "");
      return flags === listening && names.has(name.join(" "));
    });
}

/** Whether this process was told to ignore a signal, as `nohup` does with 1. */
export function isSignalIgnored(status: string, signal: number): boolean {
  const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
  return ((BigInt(`0x${mask}`) >> BigInt(signal - 1)) & 1n) === 1n;
}

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
        this.#put(`[${this.#dropped} log lines dropped: nobody read them]\n`);
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
      if (systemCode(error) !== "EAGAIN") this.#isBroken = true;
      return 0;
    }
  }
}

/** How many file descriptors this process may have: its soft limit, which Bun raises to the hard one. */
export function descriptorLimit(): number {
  const limits = readFileSync("/proc/self/limits", "utf8");
  const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
  return soft === undefined || soft === "unlimited" ? Number.POSITIVE_INFINITY : Number(soft);
}

/** The number that the next file descriptor gets: the lowest that is free. @throws if there is none */
export function nextDescriptor(): number {
  const fd = openSync("/dev/null", "r");
  closeSync(fd);
  return fd;
}
