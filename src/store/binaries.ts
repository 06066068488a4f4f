// A door: uploaded binaries, each once, in a folder of our own under the SHA-256 of its bytes.
//
// A binary comes in under another name and gets its own when it is whole and durable. Before it is
// run its bytes are summed up again, unless the file is the one that was checked, unchanged.

import { type BigIntStats, constants, lstatSync, readdirSync, renameSync, rmSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname, join } from "node:path";

import { assert, OrchestratorError, systemCode } from "../errors.ts";
import { makePrivateFolder, syncPath } from "../files.ts";
import { FILE_CLOCK_MS, HASH_CHUNK_BYTES, MAX_ADDRESS_UPLOADS, MAX_UPLOADS } from "../limits.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;
const SHA256 = /^[0-9a-f]{64}$/;
const UNFINISHED = /^upload-[0-9a-f-]{36}$/;

/** The binaries in a folder. */
export class Binaries {
  readonly folder: string;
  /** By hash, what told the file from others when its bytes were last found right. */
  readonly #checked: Map<string, string> = new Map();
  readonly #checks: Map<string, Promise<void>> = new Map();
  /** Uploads that have not ended, by the names of their files, each with the machine it comes from. */
  readonly #unfinished: Map<string, string | undefined> = new Map();
  /** Hashes that uploads need, and how many need each. */
  readonly #claims: Map<string, number> = new Map();

  /** @throws `permission_denied` or `io`, as `makePrivateFolder` */
  constructor(folder: string) {
    if (makePrivateFolder(folder)) syncPath(dirname(folder));
    this.folder = folder;
  }

  /** Where the binary with this hash stands. */
  path(hash: string): string {
    assert(SHA256.test(hash), "a binary is named by its hash");
    return join(this.folder, hash);
  }

  /**
   * Begins an upload, which comes from this other machine, if from any.
   * @throws `limit_exceeded`, or the system's error
   */
  async receive(from?: string): Promise<Upload> {
    this.#checkRoom(from);
    const name = `upload-${crypto.randomUUID()}`;
    this.#unfinished.set(name, from);
    try {
      const path = join(this.folder, name);
      const file = await open(path, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
      return new Upload(path, file, {
        store: (hash) => this.#store(path, hash),
        release: (hash) => {
          this.#unfinished.delete(name);
          if (hash !== undefined) this.#release(hash);
        },
      });
    } catch (error) {
      this.#unfinished.delete(name);
      throw error;
    }
  }

  #checkRoom(from: string | undefined): void {
    const all = [...this.#unfinished.values()];
    const crowded = (what: string): OrchestratorError =>
      new OrchestratorError(
        "limit_exceeded",
        `Cannot take another upload: ${what}; try again when one has ended`,
      );
    if (all.length >= MAX_UPLOADS)
      throw crowded(`${MAX_UPLOADS} are under way, which is the limit`);
    const count = all.filter((other) => other === from).length;
    if (from === undefined || count < MAX_ADDRESS_UPLOADS) return;
    throw crowded(`${count} are under way from ${from}, which is the limit for one machine`);
  }

  /**
   * Whether the binary is the file that was checked last and has not changed since. For a start
   * that must not wait; where it is false, `verify` tells.
   */
  isVerified(hash: string): boolean {
    const checked = this.#checked.get(hash);
    if (checked === undefined) return false;
    const found = lstatSync(this.path(hash), { bigint: true, throwIfNoEntry: false });
    return found !== undefined && identity(found) === checked;
  }

  /**
   * Makes sure that the bytes of a binary are those that were uploaded.
   * @throws `cannot_run` if they are not, or cannot be read
   */
  async verify(hash: string): Promise<void> {
    if (this.isVerified(hash)) return;
    let check = this.#checks.get(hash);
    if (check === undefined) {
      check = this.#check(hash).finally(() => this.#checks.delete(hash));
      this.#checks.set(hash, check);
    }
    await check;
  }

  /**
   * Removes what is not among the used hashes, and what uploads left that did not end.
   * Where somebody has removed the folder, nothing is left to do.
   * @throws the system's error
   */
  collect(used: ReadonlySet<string>): void {
    for (const name of this.#names()) {
      const isOurs = SHA256.test(name) || UNFINISHED.test(name);
      if (!isOurs || used.has(name) || this.#unfinished.has(name) || this.#claims.has(name)) {
        continue;
      }
      rmSync(join(this.folder, name), { recursive: true, force: true });
      this.#checked.delete(name);
    }
  }

  #names(): string[] {
    try {
      return readdirSync(this.folder);
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
      return [];
    }
  }

  /** The daemon ends: removes what uploads would leave that have not ended. @throws the system's error */
  abandon(): void {
    for (const name of this.#unfinished.keys()) rmSync(join(this.folder, name), { force: true });
  }

  /** Gives an uploaded file its name; if the same bytes are there already, they stay. */
  async #store(path: string, hash: string): Promise<void> {
    this.#claim(hash);
    try {
      const isThere = await this.verify(hash).then(
        () => true,
        () => false,
      );
      if (isThere) return;
      renameSync(path, this.path(hash));
      const folder = await open(this.folder, O_RDONLY | O_DIRECTORY);
      await folder.sync().finally(() => folder.close());
    } catch (error) {
      this.#release(hash);
      throw error;
    }
  }

  async #check(hash: string): Promise<void> {
    const path = this.path(hash);
    const refuse = (reason: string, cause?: unknown): OrchestratorError =>
      new OrchestratorError("cannot_run", `Cannot use the uploaded binary ${path}`, {
        cause: new Error(reason, { cause }),
        hint: "upload it again",
      });
    this.#checked.delete(hash);
    let file: FileHandle;
    try {
      file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      throw refuse("it cannot be opened", error);
    }
    try {
      const before = await file.stat({ bigint: true });
      const startedAt = Date.now();
      if (!before.isFile()) throw refuse("it is not a file");
      const actual = await digest(file, Number(before.size));
      const after = await file.stat({ bigint: true });
      if (actual !== hash || identity(after) !== identity(before)) {
        throw refuse("its bytes are not those that were uploaded");
      }
      if (startedAt - Number(before.ctimeMs) > FILE_CLOCK_MS) {
        this.#checked.set(hash, identity(before));
      }
    } finally {
      await file.close();
    }
  }

  #claim(name: string): void {
    this.#claims.set(name, (this.#claims.get(name) ?? 0) + 1);
  }

  #release(name: string): void {
    const left = (this.#claims.get(name) ?? 0) - 1;
    if (left > 0) this.#claims.set(name, left);
    else this.#claims.delete(name);
  }
}

/** A binary that is being uploaded: a file that only its owner may read, hashed on the way. */
export class Upload {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #owner: UploadOwner;
  readonly #hash: Bun.CryptoHasher = new Bun.CryptoHasher("sha256");
  #stored: string | undefined;
  #isFileOpen = true;
  #isReleased = false;

  constructor(path: string, file: FileHandle, owner: UploadOwner) {
    this.#path = path;
    this.#file = file;
    this.#owner = owner;
  }

  /** Appends bytes. @throws the system's error, such as ENOSPC */
  async write(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes);
    for (let at = 0; at < bytes.length;) {
      const { bytesWritten } = await this.#file.write(bytes, at, bytes.length - at);
      at += bytesWritten;
    }
  }

  /**
   * Keeps the bytes, durable and executable, under their hash, if that is the announced one.
   * Nothing collects them before `close`.
   * @returns whether it is
   * @throws the system's error
   */
  async finish(announced: string): Promise<boolean> {
    if (this.#hash.digest("hex") !== announced) return false;
    await this.#file.chmod(0o500);
    await this.#file.sync();
    await this.#closeFile();
    await this.#owner.store(announced);
    this.#stored = announced;
    return true;
  }

  /**
   * Ends it in any case, once an instance uses the binary or none will; removes what is left of it.
   * @throws the system's error
   */
  async close(): Promise<void> {
    if (this.#isReleased) return;
    this.#isReleased = true;
    try {
      await this.#closeFile();
      rmSync(this.#path, { force: true });
    } finally {
      this.#owner.release(this.#stored);
    }
  }

  async #closeFile(): Promise<void> {
    if (!this.#isFileOpen) return;
    this.#isFileOpen = false;
    await this.#file.close();
  }
}

/** What an upload asks of the folder that it belongs to. */
interface UploadOwner {
  /** Gives the file its name, and keeps it from being collected. */
  store(hash: string): Promise<void>;
  /** Nothing of this upload is needed any more. */
  release(stored: string | undefined): void;
}

/** What changes whenever a file, or the file at a path, does: a change of bytes moves `ctime`. */
function identity({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
}

/** The hash of the first `size` bytes of a file, read piece by piece. */
async function digest(file: FileHandle, size: number): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256");
  const piece = Buffer.allocUnsafe(Math.min(size, HASH_CHUNK_BYTES));
  for (let at = 0; at < size;) {
    const { bytesRead } = await file.read(piece, 0, Math.min(piece.length, size - at), at);
    if (bytesRead === 0) break;
    hash.update(piece.subarray(0, bytesRead));
    at += bytesRead;
  }
  return hash.digest("hex");
}
