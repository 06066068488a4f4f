// A door: folders and files, room on a disk, and who listens on a path.

import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from "node:fs";
import { dirname, resolve } from "node:path";

import { OrchestratorError, systemCode } from "./errors.ts";

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

/**
 * Makes a folder and those above it that are missing, with mode 0700 under any umask, and their names
 * durable.
 * @throws `io`
 */
export function makeFolders(path: string): void {
  const mask = process.umask(0o077);
  try {
    const first = mkdirSync(path, { recursive: true, mode: 0o700 });
    if (first === undefined) return;
    for (let made = path; made.length >= first.length; made = dirname(made)) {
      syncPath(dirname(made));
    }
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
 * Whether there is something of ours at a path, or the system does not let us see that there is
 * nothing. What a folder of another user hides is not ours.
 */
export function mayBeThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    const code = systemCode(error);
    if (code === "ENOTDIR") return false;
    return code !== "EACCES" || ownerOfVisible(dirname(path)) === process.getuid?.();
  }
}

/** The user of the innermost folder on the way to a path that we may still see. */
function ownerOfVisible(path: string): number | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })?.uid;
  } catch {
    return path === "/" ? undefined : ownerOfVisible(dirname(path));
  }
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
