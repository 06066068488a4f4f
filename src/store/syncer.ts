// A door: brings what was written to a file to the disk, off the event loop.

import { closeSync, constants, fdatasync, fdatasyncSync, openSync } from "node:fs";

/** Brings what was written to a file to the disk. */
export interface FileSyncer {
  /** Settles when the disk has what is written now. @throws the system's error */
  sync(): Promise<void>;
  /** Brings there what is written now, while everything waits. @throws the system's error */
  syncNow(): void;
  close(): void;
}

/** Brings one file to the disk; who asks while that is under way shares the next time. */
export class Syncer implements FileSyncer {
  readonly #fd: number;
  #running: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;
  #isBusy = false;
  #isClosed = false;

  /** @throws the system's error if there is no such file */
  constructor(path: string) {
    this.#fd = openSync(path, constants.O_RDONLY);
  }

  sync(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    const next = Promise.allSettled([this.#running]).then(() => {
      this.#next = undefined;
      return this.#isClosed ? undefined : this.#start();
    });
    this.#next = next;
    this.#running = next;
    return next;
  }

  syncNow(): void {
    fdatasyncSync(this.#fd);
  }

  /** Lets go of the file: at once, or when what is under way has ended. */
  close(): void {
    this.#isClosed = true;
    if (!this.#isBusy) closeSync(this.#fd);
  }

  #start(): Promise<void> {
    this.#isBusy = true;
    return new Promise((resolve, reject) => {
      fdatasync(this.#fd, (error) => {
        this.#isBusy = false;
        if (this.#isClosed) closeSync(this.#fd);
        if (error === null) resolve();
        else reject(error);
      });
    });
  }
}
