// A door: the files that hold the captured output of instances, `<folder>/<instance>/<number>.log`.
//
// Appends records, never beyond the cap; heals what a killed daemon left half written; reads back.
// Every call goes to a thread of the runtime: a disk that hangs holds up nothing but these promises.

import { constants } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";

import { OrchestratorError, systemCode } from "../errors.ts";
import { OUTPUT_FILE_BYTES, OUTPUT_FILES } from "../limits.ts";
import type { InstanceId } from "../model.ts";
import {
  formatHead,
  HEAD_BYTES,
  type OutputRecord,
  type Place,
  type RecordFiles,
  wholeEnd,
} from "./recording.ts";
import { SpoolShare } from "./spool.ts";

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;

/** Records that are written by one call at most. */
const MAX_BATCH = 1_024;

export interface HistoryOptions {
  /** Private; made by somebody else. */
  readonly folder: string;
  /** Of each instance; at least 1. */
  readonly files?: number | undefined;
  /** Of each file; at least `MIN_OUTPUT_FILE_BYTES`. */
  readonly fileBytes?: number | undefined;
  /** The disk begins to refuse an instance's output; or, with undefined, takes all of it again. */
  onTrouble(id: InstanceId, fault: unknown): void;
  /** Milliseconds since 1970. */
  now(): number;
  after(ms: number, action: () => void): () => void;
}

/** Where the output of one instance is kept, and what that needs of the world. */
export interface OutputStorage {
  readonly files: HistoryFiles;
  readonly share: SpoolShare;
  onTrouble(fault: unknown): void;
  now(): number;
  after(ms: number, action: () => void): () => void;
}

/** The output of all instances on disk. */
export class Histories {
  readonly #options: HistoryOptions;
  readonly #share: SpoolShare = new SpoolShare();
  readonly #removals: Map<InstanceId, Promise<void>> = new Map();

  constructor(options: HistoryOptions) {
    this.#options = options;
  }

  /** For one instance, and once at a time. What is there already stays. */
  open(id: InstanceId): OutputStorage {
    const { folder, files = OUTPUT_FILES, fileBytes = OUTPUT_FILE_BYTES } = this.#options;
    const { onTrouble, now, after } = this.#options;
    return {
      files: new HistoryFiles(join(folder, id), files, fileBytes, this.#removals.get(id)),
      share: this.#share,
      onTrouble: (fault) => onTrouble(id, fault),
      now,
      after,
    };
  }

  /** Removes the files of an instance when they are `closed`; who opens them anew waits for that. */
  remove(id: InstanceId, files: HistoryFiles, closed: Promise<void>): Promise<void> {
    return this.#removing(
      id,
      closed.then(() => files.remove()),
    );
  }

  /**
   * Removes what belongs to no instance: a daemon was killed between two steps of a removal. An
   * instance that is added meanwhile waits for that.
   */
  async sweep(isKnown: (id: InstanceId) => boolean): Promise<void> {
    const strays = (await readdir(this.#options.folder)).filter((name) => !isKnown(name));
    let before: Promise<void> = Promise.resolve();
    const removals = strays.map((name) => {
      const path = join(this.#options.folder, name);
      before = before.catch(() => {}).then(() => rm(path, { recursive: true, force: true }));
      return this.#removing(name, before);
    });
    await Promise.all(removals);
  }

  async #removing(id: InstanceId, removal: Promise<void>): Promise<void> {
    const settled = removal.catch(() => {});
    this.#removals.set(id, settled);
    await settled;
    if (this.#removals.get(id) === settled) this.#removals.delete(id);
    await removal;
  }
}

/** The files of one instance. Looks at the disk when it is first asked to read or to append. */
export class HistoryFiles implements RecordFiles {
  readonly #folder: string;
  readonly #maxFiles: number;
  readonly #maxFileBytes: number;
  readonly #previous: Promise<void> | undefined;
  #firstFile = 1;
  #end: Place = { file: 1, offset: 0, before: 0 };
  /** Bytes of the files before the last. */
  readonly #sizes: Map<number, number> = new Map();
  #looked: Promise<void> | undefined;
  /** The last file, while there is something to append. */
  #handle: FileHandle | undefined;
  #inode = 0;
  /** A write may have left part of a record behind the end. */
  #isTorn = false;
  #isGone = false;
  readonly #watchers: Set<() => void> = new Set();
  /** As they are on the disk, also behind the end. */
  readonly #raw: Pick<RecordFiles, "read"> = {
    read: (file, from, to) => readRange(this.#path(file), from, to),
  };

  /** Touches nothing before `previous` has settled: the removal of earlier files in this place. */
  constructor(
    folder: string,
    maxFiles: number,
    maxFileBytes: number,
    previous: Promise<void> | undefined = undefined,
  ) {
    this.#folder = folder;
    this.#maxFiles = maxFiles;
    this.#maxFileBytes = maxFileBytes;
    this.#previous = previous;
  }

  get firstFile(): number {
    return this.#firstFile;
  }

  get end(): Place {
    return this.#end;
  }

  /** No more is appended, and nothing is left to read. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** Settles when the place of the end is known. @throws the system's error */
  async look(): Promise<void> {
    this.#looked ??= this.#find().catch((error: unknown) => {
      this.#looked = undefined; // the next one tries again; here, since many may hear of it
      throw error;
    });
    await this.#looked;
  }

  /** Calls `onChange` whenever something was appended, or all is gone; the returned function ends that. */
  watch(onChange: () => void): () => void {
    this.#watchers.add(onChange);
    return () => this.#watchers.delete(onChange);
  }

  /**
   * Writes the first records of a list, at least one; one call at a time.
   * @returns how many were written
   * @throws the system's error; then none were, and the same call may be made again
   */
  async append(records: readonly OutputRecord[]): Promise<number> {
    await this.look();
    if (this.#isGone) return records.length;
    if (this.#isTorn) await this.#handle?.truncate(this.#end.offset);
    this.#isTorn = false;
    await this.#checkLast();
    const [first] = records;
    if (first === undefined) return 0;
    if (this.#roomAfter(first) < 0 && this.#end.offset > 0) await this.#rotate(this.#end);
    this.#handle ??= await this.#openLast();
    const buffers: Buffer[] = [];
    let { offset, before } = this.#end;
    let count = 0;
    for (const { time, stream, length, regions } of records) {
      const isFull = offset + HEAD_BYTES + length > this.#maxFileBytes || count === MAX_BATCH;
      if (isFull && count > 0) break;
      buffers.push(formatHead({ time, stream, length, before }), ...regions);
      offset += HEAD_BYTES + length;
      before = length;
      count++;
    }
    this.#isTorn = true;
    await writeAll(this.#handle, buffers);
    this.#isTorn = false;
    this.#end = { file: this.#end.file, offset, before };
    this.#tell();
    return count;
  }

  /** Keeps no file open until the next append. Not while one is under way. */
  async rest(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  /** Removes everything. Not while an append is under way. */
  async remove(): Promise<void> {
    this.#isGone = true;
    this.#tell();
    await this.rest();
    await this.#previous;
    await rm(this.#folder, { recursive: true, force: true });
  }

  async read(file: number, from: number, to: number): Promise<Buffer> {
    const end = file === this.#end.file ? Math.min(to, this.#end.offset) : to;
    return readRange(this.#path(file), from, end);
  }

  async size(file: number): Promise<number> {
    return this.#sizes.get(file) ?? 0;
  }

  #roomAfter({ length }: OutputRecord): number {
    return this.#maxFileBytes - this.#end.offset - HEAD_BYTES - length;
  }

  #path(file: number): string {
    return join(this.#folder, `${String(file).padStart(8, "0")}.log`);
  }

  #tell(): void {
    for (const onChange of this.#watchers) onChange();
  }

  /** Finds what is there, and where its last whole record ends. */
  async #find(): Promise<void> {
    await this.#previous;
    this.#sizes.clear();
    const numbers = await this.#list();
    const last = numbers.at(-1);
    if (last === undefined) return;
    this.#firstFile = numbers[0] as number;
    for (const file of numbers) {
      const found = await lstat(this.#path(file));
      this.#sizes.set(file, found.isFile() ? found.size : 0); // what took its place is not ours
    }
    let end = await wholeEnd(this.#raw, last);
    if (end.offset < (this.#sizes.get(last) as number)) {
      await cut(this.#path(last), end.offset);
    }
    this.#sizes.delete(last);
    if (end.offset === 0 && this.#sizes.has(last - 1)) {
      end = { ...end, before: (await wholeEnd(this.#raw, last - 1)).before };
    }
    this.#end = end;
    await this.#makeRoom(this.#maxFiles - 1, this.#maxFileBytes * this.#maxFiles - end.offset);
  }

  /** The numbers of the files, upward; without those before a gap, which are removed. */
  async #list(): Promise<number[]> {
    const names = (await readdir(this.#folder).catch(ifThere)) ?? [];
    const numbers = names
      .flatMap((name) => /^(\d{8,})\.log$/.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
    const gap = numbers.findLastIndex((number, i) => i > 0 && numbers[i - 1] !== number - 1);
    for (const stray of numbers.splice(0, Math.max(0, gap))) await rm(this.#path(stray));
    return numbers;
  }

  /** Goes on in the next file behind an end of this one. */
  async #rotate({ file, offset, before }: Place): Promise<void> {
    this.#sizes.set(file, offset);
    await this.rest();
    await this.#makeRoom(this.#maxFiles - 1, this.#maxFileBytes * (this.#maxFiles - 1));
    this.#end = { file: file + 1, offset: 0, before };
  }

  /** Somebody may have removed, replaced or shortened the last file: what comes goes to the next one. */
  async #checkLast(): Promise<void> {
    const { file, offset } = this.#end;
    if (offset === 0 && this.#handle === undefined) return;
    const path = this.#path(file);
    const found = await lstat(path).catch(ifThere);
    if (!found?.isFile()) return this.#rotate({ file, offset: 0, before: 0 });
    const isSame = this.#handle === undefined || found.ino === this.#inode;
    if (isSame && found.size === offset) return;
    const end = await wholeEnd(this.#raw, file);
    await cut(path, end.offset);
    await this.#rotate(end);
  }

  /** Removes the oldest files until those before the last are so few. */
  async #makeRoom(maxFiles: number, maxBytes: number): Promise<void> {
    let bytes = this.#sizes.values().reduce((sum, size) => sum + size, 0);
    for (const [file, size] of this.#sizes) {
      if (this.#sizes.size <= maxFiles && bytes <= maxBytes) return;
      const path = this.#path(file);
      // Emptied first: a file that somebody else has open would keep its place on the disk.
      if ((await lstat(path).catch(ifThere))?.isFile()) await cut(path, 0);
      await rm(path, { recursive: true, force: true });
      this.#sizes.delete(file);
      this.#firstFile = file + 1;
      bytes -= size;
    }
  }

  async #openLast(): Promise<FileHandle> {
    try {
      await makeFolder(this.#folder);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
      await makeFolder(dirname(this.#folder)); // somebody has removed that of all instances
      await makeFolder(this.#folder);
    }
    if (!(await lstat(this.#folder)).isDirectory()) {
      throw new OrchestratorError("io", `Cannot use ${this.#folder}: it is not a folder`);
    }
    const flags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_CREAT;
    const handle = await open(this.#path(this.#end.file), flags, 0o600);
    this.#handle = handle; // closed like any other, should the next call fail
    this.#inode = (await handle.stat()).ino;
    return handle;
  }
}

/** For what need not be there. @throws any other fault */
function ifThere(error: unknown): undefined {
  if (systemCode(error) !== "ENOENT") throw error;
}

/** Makes a folder of our own, if it is not there. */
async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { mode: 0o700 }).catch((error: unknown) => {
    if (systemCode(error) !== "EEXIST") throw error;
  });
}

/** Shortens a file, if it is there. */
async function cut(path: string, length: number): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(path, O_WRONLY | O_NOFOLLOW);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return;
    throw error;
  }
  try {
    await handle.truncate(length);
  } finally {
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, buffers: Buffer[]): Promise<void> {
  for (let left = buffers; left.length > 0;) {
    let { bytesWritten } = await handle.writev(left);
    const index = left.findIndex(({ length }) => {
      if (bytesWritten < length) return true;
      bytesWritten -= length;
      return false;
    });
    const rest = left[index];
    left = rest === undefined ? [] : [rest.subarray(bytesWritten), ...left.slice(index + 1)];
  }
}

/** Fewer bytes than asked for where the file ends, none if it is gone or a link took its place. */
async function readRange(path: string, from: number, to: number): Promise<Buffer> {
  if (to <= from) return Buffer.alloc(0);
  let handle: FileHandle;
  try {
    handle = await open(path, O_RDONLY | O_NOFOLLOW);
  } catch (error) {
    if (["ENOENT", "ELOOP"].includes(systemCode(error) ?? "")) return Buffer.alloc(0);
    throw error;
  }
  try {
    const bytes = Buffer.allocUnsafeSlow(to - from);
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, from);
    return bytes.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
