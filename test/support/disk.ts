// A disk of its own, small enough to be filled.

import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What nobody who writes to a disk needs less of. */
const PAGE_BYTES = 4_096;

/** A file system in memory. */
export class Disk {
  readonly folder: string;
  readonly #ballast: string;

  private constructor(folder: string) {
    this.folder = folder;
    this.#ballast = join(folder, "ballast");
  }

  /** Mounts one that holds so many bytes. @returns undefined where this user may not */
  static mount(bytes: number): Disk | undefined {
    const folder = mkdtempSync(join(tmpdir(), "vo-disk-"));
    if (run("mount", "-t", "tmpfs", "-o", `size=${bytes},mode=700`, "tmpfs", folder)) {
      return new Disk(folder);
    }
    rmSync(folder, { recursive: true });
    return undefined;
  }

  /** Takes all the room that is left, but for so many bytes. */
  fill(roomBytes: number = 0): void {
    const fd = openSync(this.#ballast, "a");
    try {
      for (;;) writeSync(fd, Buffer.alloc(PAGE_BYTES));
    } catch (error) {
      if ((error as { code?: unknown }).code !== "ENOSPC") throw error;
    } finally {
      closeSync(fd);
    }
    truncateSync(this.#ballast, Math.max(0, statSync(this.#ballast).size - roomBytes));
  }

  makeRoom(): void {
    rmSync(this.#ballast, { force: true });
  }

  /** Nothing can be written to it any more. */
  protect(): void {
    run("mount", "-o", "remount,ro", this.folder);
  }

  unmount(): void {
    run("umount", "--lazy", this.folder);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Why there is no disk to fill, and how there may be one. */
export const NO_DISK = "no file system can be mounted: run it as root, or behind unshare -rm";

function run(...cmd: string[]): boolean {
  return Bun.spawnSync({ cmd, stdout: "ignore", stderr: "ignore" }).success;
}
