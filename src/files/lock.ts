// A door: locks of files, and folders that a lock makes one daemon's own.

import { Database } from "bun:sqlite";
import { accessSync, constants, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

import { OrchestratorError, systemCode } from "../errors.ts";
import { makePrivateFolder } from "../files.ts";

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
    let file: string | undefined;
    let database: Database | undefined;
    try {
      file = identityOf(path);
      const mask = process.umask(0o177);
      try {
        database = new Database(path, { create: true });
      } finally {
        process.umask(mask);
      }
      if (file === undefined) {
        database.close(); // now there is one, and it is known which one is opened
        continue;
      }
      database.run("PRAGMA journal_mode = MEMORY");
      database.run("BEGIN EXCLUSIVE");
    } catch (error) {
      database?.close();
      const code = (error as { code?: unknown }).code;
      if (code === "SQLITE_BUSY") return undefined;
      throw new OrchestratorError("io", `Cannot lock ${path}`, { cause: explainLock(error, path) });
    }
    // Between our open and our lock its holder may have removed it, and a third have made another.
    if (identityOf(path) !== file) {
      database.close();
      continue;
    }
    const held = database;
    heldLocks.add(held);
    return {
      release: () => {
        if (!heldLocks.delete(held)) return;
        try {
          if (identityOf(path) === file) rmSync(path, { force: true });
        } finally {
          held.close();
        }
      },
    };
  }
}

/** What tells the file at a path from others that had its name; undefined if there is none. */
function identityOf(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found && [found.dev, found.ino, found.birthtimeNs].join(" ");
}

function explainLock(error: unknown, path: string): unknown {
  const folder = dirname(resolve(path));
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found === undefined) return new Error(`the folder ${folder} does not exist`);
  if (!found.isDirectory()) return new Error(`${folder} is not a folder`);
  const code = systemCode(error) ?? (error as { code?: unknown }).code;
  if (code !== "EACCES" && code !== "SQLITE_CANTOPEN") return error;
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
