import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { Binaries, type Upload } from "../../src/store/binaries.ts";
import { OrchestratorError } from "../../src/errors.ts";
import {
  FILE_CLOCK_MS,
  HASH_CHUNK_BYTES,
  MAX_ADDRESS_UPLOADS,
  MAX_UPLOADS,
} from "../../src/limits.ts";
import { Random } from "../support/random.ts";
import { refusal } from "../support/refusal.ts";
import { until } from "../support/wire.ts";

const PROGRAM = Buffer.from("#!/bin/sh\necho hello\n");

let base: string;
let folders = 0;
beforeAll(() => {
  base = mkdtempSync(join(tmpdir(), "vo-binaries-"));
});
afterAll(() => rmSync(base, { recursive: true, force: true }));

function newBinaries(): Binaries {
  return new Binaries(join(base, String(folders++)));
}

function hashOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Uploads bytes; returns their hash. */
async function upload(binaries: Binaries, bytes: Buffer = PROGRAM): Promise<string> {
  const hash = hashOf(bytes);
  const receiving = await binaries.receive();
  for (let at = 0; at < bytes.length; at += 65_536) {
    await receiving.write(bytes.subarray(at, at + 65_536));
  }
  expect(await receiving.finish(hash)).toBe(true);
  await receiving.close();
  return hash;
}

/** Why a binary is not to be run, or "fine". */
async function verdict(binaries: Binaries, hash: string): Promise<string> {
  try {
    await binaries.verify(hash);
    return "fine";
  } catch (error) {
    const { code, message, cause, hint } = error as OrchestratorError;
    expect(code).toBe("cannot_run");
    expect(message).toBe(`Cannot use the uploaded binary ${binaries.path(hash)}`);
    expect(hint).toBe("upload it again");
    const { message: reason, cause: of } = cause as Error;
    return of === undefined ? reason : `${reason} (${(of as { code: string }).code})`;
  }
}

/** Waits until a change of the file would be told by its time. */
async function settled(path: string): Promise<void> {
  await until("the file is old enough", () => Date.now() - statSync(path).ctimeMs > FILE_CLOCK_MS);
}

describe("Upload", () => {
  test("stands under its hash, for its owner to read and run, in a private folder", async () => {
    const mask = process.umask(0);
    try {
      const binaries = newBinaries();
      const hash = await upload(binaries);
      const path = binaries.path(hash);
      expect(path).toBe(join(binaries.folder, hash));
      expect(readFileSync(path)).toEqual(PROGRAM);
      expect(statSync(path).mode & 0o777).toBe(0o500);
      expect(statSync(binaries.folder).mode & 0o777).toBe(0o700);
      expect(Bun.spawnSync({ cmd: [path] }).stdout.toString()).toBe("hello\n");
    } finally {
      process.umask(mask);
    }
  });

  test("is nobody's to read while it comes in", async () => {
    const binaries = newBinaries();
    const receiving = await binaries.receive();
    const [name] = readdirSync(binaries.folder);
    expect(lstatSync(join(binaries.folder, name as string)).mode & 0o777).toBe(0o600);
    await receiving.close();
    expect(readdirSync(binaries.folder)).toEqual([]);
  });

  test("may be empty", async () => {
    const binaries = newBinaries();
    expect(await verdict(binaries, await upload(binaries, Buffer.alloc(0)))).toBe("fine");
  });

  test("with another hash than announced leaves nothing", async () => {
    const binaries = newBinaries();
    const receiving = await binaries.receive();
    await receiving.write(PROGRAM);
    expect(await receiving.finish(hashOf(Buffer.from("other")))).toBe(false);
    await receiving.close();
    await receiving.close();
    expect(readdirSync(binaries.folder)).toEqual([]);
  });

  test("of bytes that are there already leaves the file that is in use", async () => {
    const binaries = newBinaries();
    const hash = await upload(binaries);
    const { ino } = statSync(binaries.path(hash));
    expect(await upload(binaries)).toBe(hash);
    expect(readdirSync(binaries.folder)).toEqual([hash]);
    expect(statSync(binaries.path(hash)).ino).toBe(ino);
  });

  test("of bytes whose file was edited mends it", async () => {
    const binaries = newBinaries();
    const hash = await upload(binaries);
    chmodSync(binaries.path(hash), 0o700);
    writeFileSync(binaries.path(hash), "#!/bin/sh\necho gotcha\n");
    await upload(binaries);
    expect(await verdict(binaries, hash)).toBe("fine");
  });

  test("sixteen of the same bytes at once leave one file", async () => {
    const binaries = newBinaries();
    const hashes = await Promise.all(Array.from({ length: MAX_UPLOADS }, () => upload(binaries)));
    expect(new Set(hashes).size).toBe(1);
    expect(readdirSync(binaries.folder)).toEqual([hashes[0] as string]);
  });

  test("holds the limit of uploads at once, and names it (R28, S9)", async () => {
    const binaries = newBinaries();
    const open: Upload[] = [];
    while (open.length < MAX_UPLOADS) open.push(await binaries.receive());
    const refused = {
      code: "limit_exceeded",
      message: expect.stringContaining("16 are under way"),
    };
    await expect(binaries.receive()).rejects.toMatchObject(refused);
    await expect(binaries.receive("10.0.0.1")).rejects.toMatchObject(refused);
    await open.pop()?.close();
    open.push(await binaries.receive());
    await expect(binaries.receive()).rejects.toMatchObject(refused);
    for (const one of open) await one.close();
    expect(readdirSync(binaries.folder)).toEqual([]);
  });

  test("holds the limit of uploads from one machine, and names both; others come through (S9)", async () => {
    const binaries = newBinaries();
    const open: Upload[] = [];
    while (open.length < MAX_ADDRESS_UPLOADS) open.push(await binaries.receive("10.0.0.1"));
    await expect(binaries.receive("10.0.0.1")).rejects.toMatchObject({
      code: "limit_exceeded",
      message: expect.stringContaining("8 are under way from 10.0.0.1"),
    });
    for (const from of ["10.0.0.2", undefined]) open.push(await binaries.receive(from));
    await open.shift()?.close();
    open.push(await binaries.receive("10.0.0.1"));
    for (const one of open) await one.close();
  });

  test("that cannot be cleared away does not count either", async () => {
    const binaries = newBinaries();
    for (let i = 0; i <= MAX_UPLOADS; i++) {
      const one = await binaries.receive();
      for (const name of readdirSync(binaries.folder)) {
        rmSync(join(binaries.folder, name), { recursive: true });
        mkdirSync(join(binaries.folder, name, "x"), { recursive: true });
      }
      await expect(one.close()).rejects.toThrow();
    }
  });

  test("that cannot be begun does not count", async () => {
    const binaries = newBinaries();
    rmSync(binaries.folder, { recursive: true });
    for (let i = 0; i <= MAX_UPLOADS; i++) {
      expect(await binaries.receive().catch(({ code }) => code)).toBe("ENOENT");
    }
  });

  test("cannot be begun where the folder is gone", async () => {
    const binaries = newBinaries();
    rmSync(binaries.folder, { recursive: true });
    await expect(binaries.receive()).rejects.toThrow("ENOENT");
  });
});

describe("Binaries", () => {
  test.each(["", "..", "../../etc/passwd", "A".repeat(64), "a".repeat(63), `${"a".repeat(64)}\0`])(
    "path() takes no %p for a hash (S8)",
    (hash) => {
      expect(refusal(() => newBinaries().path(hash))).toStartWith("internal: Defect: ");
    },
  );

  test.each(["a link", "a loose folder", "a file"])("stand in no %s (S1)", (what) => {
    const folder = join(base, String(folders++));
    if (what === "a link") symlinkSync(base, folder);
    else if (what === "a file") writeFileSync(folder, "");
    else {
      mkdirSync(folder);
      chmodSync(folder, 0o750);
    }
    expect(refusal(() => new Binaries(folder))).toStartWith("permission_denied: ");
  });

  const edits: [what: string, edit: (path: string) => void, verdict: string][] = [
    ["nothing", () => {}, "fine"],
    ["its times", (path) => utimesSync(path, 1, 1), "fine"],
    ["a byte", (path) => overwrite(path), "its bytes are not those that were uploaded"],
    [
      "a byte, and its times put back",
      (path) => {
        const { atime, mtime } = statSync(path);
        overwrite(path);
        utimesSync(path, atime, mtime);
      },
      "its bytes are not those that were uploaded",
    ],
    [
      "a byte more",
      (path) => appendFileSync(path, "\n"),
      "its bytes are not those that were uploaded",
    ],
    ["its end", (path) => truncateSync(path, 5), "its bytes are not those that were uploaded"],
    ["its absence", (path) => rmSync(path), "it cannot be opened (ENOENT)"],
    [
      "a link to the same bytes",
      (path) => {
        renameSync(path, `${path}.moved`);
        symlinkSync(`${path}.moved`, path);
      },
      "it cannot be opened (ELOOP)",
    ],
    [
      "a folder",
      (path) => {
        rmSync(path);
        mkdirSync(path);
      },
      "it is not a file",
    ],
    [
      "a pipe",
      (path) => {
        rmSync(path);
        expect(Bun.spawnSync({ cmd: ["mkfifo", path] }).success).toBe(true);
      },
      "it is not a file",
    ],
  ];

  test.each(edits)("verify() notices %s", async (_, edit, expected) => {
    for (const isKnown of [false, true]) {
      const binaries = newBinaries();
      const hash = await upload(binaries);
      if (isKnown) {
        await settled(binaries.path(hash));
        await binaries.verify(hash);
        expect(binaries.isVerified(hash)).toBe(true);
      }
      chmodSync(binaries.path(hash), 0o700);
      edit(binaries.path(hash));
      expect(binaries.isVerified(hash)).toBe(false);
      expect(await verdict(binaries, hash)).toBe(expected);
      expect(await verdict(binaries, hash)).toBe(expected);
    }
  });

  test("a file that changes within the grain of its clock is never taken for verified", async () => {
    const binaries = newBinaries();
    const random = new Random(1);
    for (let i = 0; i < 50; i++) {
      const hash = await upload(binaries, random.bytes(100));
      await binaries.verify(hash);
      overwrite(binaries.path(hash));
      expect(await verdict(binaries, hash)).toBe("its bytes are not those that were uploaded");
    }
  });

  test("verify() of a large binary lets other work go on meanwhile", async () => {
    const binaries = newBinaries();
    const hash = await upload(binaries, new Random(2).bytes(8 * HASH_CHUNK_BYTES + 1));
    await settled(binaries.path(hash));
    let turns = 0;
    let isDone = false;
    const turn = (): void => {
      turns++;
      if (!isDone) setImmediate(turn);
    };
    turn();
    await Promise.all([binaries.verify(hash), binaries.verify(hash)]);
    isDone = true;
    expect(turns).toBeGreaterThan(1); // the first is ours
    expect(binaries.isVerified(hash)).toBe(true);
    expect(binaries.isVerified(hashOf(PROGRAM))).toBe(false);
  });

  test("no interleaving of swaps and checks lets a stranger pass (S8)", async () => {
    const binaries = newBinaries();
    const hash = await upload(binaries);
    const path = binaries.path(hash);
    const stranger = join(base, "stranger");
    writeFileSync(stranger, "#!/bin/sh\necho gotcha\n", { mode: 0o500 });
    renameSync(path, `${path}.good`);
    const random = new Random(3);
    let passed = 0;
    for (let i = 0; i < 1_000; i++) {
      const isGood = random.chance(0.5);
      rmSync(path, { force: true });
      if (isGood) writeFileSync(path, PROGRAM, { mode: 0o500 });
      else symlinkSync(random.pick([stranger, `${path}.good`]), path);
      const isFine = binaries.isVerified(hash) || (await verdict(binaries, hash)) === "fine";
      expect(isFine).toBe(isGood);
      if (isFine) passed++;
    }
    expect(passed).toBeGreaterThan(400);
  });
});

describe("Binaries.collect()", () => {
  test("removes what nobody uses and what uploads left, and nothing else", async () => {
    const binaries = newBinaries();
    const [used, unused] = [await upload(binaries), await upload(binaries, Buffer.from("x"))];
    writeFileSync(join(binaries.folder, `upload-${crypto.randomUUID()}`), "half");
    symlinkSync(base, join(binaries.folder, "0".repeat(64)));
    writeFileSync(join(binaries.folder, "notes.txt"), "mine");
    binaries.collect(new Set([used]));
    expect(readdirSync(binaries.folder).toSorted()).toEqual([used, "notes.txt"].toSorted());
    expect(binaries.isVerified(unused)).toBe(false);
    expect(existsSync(base)).toBe(true);
    binaries.collect(new Set());
    expect(readdirSync(binaries.folder)).toEqual(["notes.txt"]);
  });

  test("has nothing to do where the folder is gone", () => {
    const binaries = newBinaries();
    rmSync(binaries.folder, { recursive: true });
    expect(() => binaries.collect(new Set())).not.toThrow();
  });

  test("leaves what an upload needs, until it is closed", async () => {
    const binaries = newBinaries();
    const [first, second] = [await binaries.receive(), await binaries.receive()];
    for (const receiving of [first, second]) await receiving.write(PROGRAM);
    binaries.collect(new Set());
    expect(readdirSync(binaries.folder)).toHaveLength(2);
    for (const receiving of [first, second]) {
      expect(await receiving.finish(hashOf(PROGRAM))).toBe(true);
    }
    await first.close();
    binaries.collect(new Set());
    expect(await verdict(binaries, hashOf(PROGRAM))).toBe("fine");
    await second.close();
    binaries.collect(new Set());
    expect(readdirSync(binaries.folder)).toEqual([]);
  });
});

/** Changes one byte, and not the length. */
function overwrite(path: string): void {
  const bytes = readFileSync(path);
  bytes[0] = (bytes[0] as number) ^ 1;
  chmodSync(path, 0o700);
  writeFileSync(path, bytes);
}
