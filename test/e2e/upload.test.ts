// Uploads: the bytes arrive whole or not at all, and none of them is ever read as a request.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { appendFileSync, chmodSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";

import { type Daemon, withDaemon } from "../support/daemon.ts";
import { type Control, type Dialect, DIALECTS, encode, frame, until } from "../support/wire.ts";

setDefaultTimeout(60_000);

const MIB = 2 ** 20;
const PROGRAM = Buffer.from("#!/bin/sh\necho uploaded\nexec sleep 1000\n");

interface Announcement {
  id: string;
  length: number;
  hash: number[];
  privileged?: boolean;
}

/** The request for an upload of these bytes. */
function announce(bytes: Uint8Array, id: string = crypto.randomUUID()): Announcement {
  return { id, length: bytes.length, hash: [...createHash("sha256").update(bytes).digest()] };
}

/** Bytes of an upload as a dialect carries them, in frames of at most 64 KiB. */
function carry(dialect: Dialect, bytes: Buffer): Buffer {
  if (dialect === "veecle") return bytes;
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 65_536) {
    frames.push(frame(bytes.subarray(at, at + 65_536)));
  }
  return Buffer.concat(frames);
}

/** Uploaded files that the daemon holds. */
function uploads(daemon: Daemon): string[] {
  return readdirSync(daemon.stateFolder, { recursive: true, encoding: "utf8" }).filter((path) =>
    path.includes("binaries/"),
  );
}

/** An upload that works; returns its id. */
async function upload(control: Control, bytes: Buffer, privileged = false): Promise<string> {
  const announcement = { ...announce(bytes), privileged };
  await control.ok({ AddWithBinary: announcement });
  control.wire.send(carry(control.dialect, bytes));
  expect(await control.answer()).toEqual({ Ok: null });
  return announcement.id;
}

test("Of two uploads for one id the second is refused, and its bytes do not stay (R29)", () =>
  withDaemon(async (daemon) => {
    const [first, second] = [await daemon.control("veecle"), await daemon.control("veecle")];
    const id = crypto.randomUUID();
    const other = Buffer.from("#!/bin/sh\necho other\n");
    await first.ok({ AddWithBinary: announce(PROGRAM, id) });
    await second.ok({ AddWithBinary: announce(other, id) });
    first.wire.send(PROGRAM);
    expect(await first.answer()).toEqual({ Ok: null });
    second.wire.send(other);
    expect(await second.answer()).toMatchObject({ Err: [expect.stringContaining("Cannot add")] });
    await until("only the first is left", () => uploads(daemon).length === 1);
    const { binary } = await daemon.runtime(id);
    expect(binary).toEndWith(uploads(daemon)[0] as string);
  }));

describe.each(DIALECTS)("An upload in the %s dialect", (dialect) => {
  test("becomes an instance that runs (P-15)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const id = await upload(control, PROGRAM, true);
      const runtime = await daemon.runtime(id);
      expect(runtime).toMatchObject({ running: false, privileged: true });
      expect(runtime.binary).toStartWith(daemon.stateFolder);
      expect(runtime.hash).toBe(Buffer.from(announce(PROGRAM).hash).toString("hex"));
      expect(statSync(runtime.binary).mode & 0o777).toBe(0o500);
      const follower = await daemon.control();
      await follower.ok({ Stdout: id });
      expect(await control.ask({ Start: { id } })).toEqual({ Ok: null });
      expect(await follower.item()).toBe("uploaded");
      await daemon.stop(id);
    }));

  test("may be sent in one go, with requests behind it, by a client that sends no more (P-10, P-16)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const request = announce(PROGRAM);
      control.wire.send(
        Buffer.concat([
          encode(dialect, { AddWithBinary: request }),
          carry(dialect, PROGRAM),
          encode(dialect, "Version"),
        ]),
      );
      control.wire.finish();
      expect(await control.answer()).toEqual({ Ok: null });
      expect(await control.answer()).toEqual({ Ok: null });
      expect(await control.answer()).toEqual({ Ok: "0.1.0" });
      expect(await control.wire.rest()).toHaveLength(0);
      expect(await daemon.runtime(request.id)).toMatchObject({ running: false });
    }));

  test("may come byte by byte, or be empty", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const request = announce(PROGRAM);
      await control.ok({ AddWithBinary: request });
      for (const byte of carry(dialect, PROGRAM)) {
        control.wire.send(Uint8Array.of(byte));
        await Bun.sleep(0);
      }
      expect(await control.answer()).toEqual({ Ok: null });
      const empty = await upload(control, Buffer.alloc(0));
      expect((await control.ask({ Start: empty })).Err?.at(-1)).toContain("not a program");
    }));

  test("goes when its instance does", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const ids = [];
      const other = Buffer.from("#!/bin/sh\n");
      for (const bytes of [PROGRAM, PROGRAM, other]) ids.push(await upload(control, bytes));
      expect(uploads(daemon)).toHaveLength(2); // equal bytes are kept once
      await daemon.ok({ Remove: ids[0] });
      await daemon.ok({ Remove: ids[2] });
      expect(uploads(daemon)).toHaveLength(1);
      await daemon.start(ids[1] as string);
      await daemon.ok("Clear");
      expect(uploads(daemon)).toEqual([]);
    }));

  test("goes when its instance has another program", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const [id, other] = [await upload(control, PROGRAM), await upload(control, PROGRAM)];
      await control.ok({ Update: { id, path: "/bin/true" } });
      expect(uploads(daemon)).toHaveLength(1); // another one has it
      await control.ok({ Update: { id: other, args: ["-v"] } });
      expect(uploads(daemon)).toHaveLength(1);
      await control.ok({ Update: { id: other, path: "/bin/true" } });
      await until("nobody has it", () => uploads(daemon).length === 0);
    }));

  test("with another hash is refused and leaves nothing; the connection goes on (P-18)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      const request = announce(Buffer.from("something else"));
      await control.ok({ AddWithBinary: { ...request, length: PROGRAM.length } });
      control.wire.send(carry(dialect, PROGRAM));
      const message = `Cannot add instance "${request.id}": the uploaded bytes do not have the announced hash`;
      const code = dialect === "native" ? { code: "upload_failed" } : {};
      expect(await control.answer()).toEqual({ Err: [message], ...code });
      expect(uploads(daemon)).toEqual([]);
      expect((await daemon.info()).runtimes).toEqual({});
      await upload(control, PROGRAM);
    }));

  test("that ends early is refused and leaves nothing, wherever it is cut (P-18)", () =>
    withDaemon(async (daemon) => {
      const bytes = carry(dialect, PROGRAM);
      for (let cut = 0; cut < bytes.length; cut += 5) {
        const control = await daemon.control(dialect);
        await control.ok({ AddWithBinary: announce(PROGRAM) });
        control.wire.send(bytes.subarray(0, cut));
        if (cut % 2 === 0) {
          control.wire.finish();
          expect((await control.answer()).Err?.[0]).toMatch(/the upload ended \d+ bytes before/);
          expect(await control.wire.rest()).toHaveLength(0);
        } else {
          await control.wire.sent();
          control.wire.close();
        }
      }
      await until("no file is left", () => uploads(daemon).length === 0);
      expect((await daemon.info()).runtimes).toEqual({});
    }));

  test("of a registered id is taken to its end and refused (P-16)", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add("/first");
      const control = await daemon.control(dialect);
      control.send({ AddWithBinary: announce(PROGRAM, id) });
      const first = await control.answer();
      control.wire.send(carry(dialect, PROGRAM));
      const { Err } = "Err" in first ? first : await control.answer();
      expect(Err?.[0]).toContain("an instance with this id is registered already");
      expect(await control.ok("Version")).toBe("0.1.0");
      expect(await daemon.runtime(id)).toMatchObject({ binary: "/first" });
      expect(uploads(daemon)).toEqual([]);
    }));

  test("of an id that another upload takes first is refused", () =>
    withDaemon(async (daemon) => {
      const request = { AddWithBinary: announce(PROGRAM) };
      const [a, b] = [await daemon.control(dialect), await daemon.control(dialect)];
      await a.ok(request);
      await b.ok(request);
      a.wire.send(carry(dialect, PROGRAM));
      expect(await a.answer()).toEqual({ Ok: null });
      b.wire.send(carry(dialect, PROGRAM));
      expect((await b.answer()).Err?.[0]).toContain("registered already");
      expect(uploads(daemon)).toHaveLength(1);
    }));

  test("beyond 16 at once is taken to its end and refused, and nothing in it is a request (S9)", () =>
    withDaemon(async (daemon) => {
      const sentinel = await daemon.add("/sentinel");
      const open: Control[] = [];
      for (let i = 0; i < 16; i++) {
        const control = await daemon.control(dialect);
        await control.ok({ AddWithBinary: announce(PROGRAM) });
        open.push(control);
      }
      await until("all are under way", () => uploads(daemon).length === 16);
      const bytes = Buffer.concat([Buffer.from('\n"Clear"\n'), frame('"Clear"')]);
      const control = await daemon.control(dialect);
      await control.ok({ AddWithBinary: announce(bytes) });
      control.wire.send(carry(dialect, bytes));
      const answer = await control.answer();
      expect(answer.Err?.[0]).toBe(
        "Cannot take another upload: 16 are under way, which is the limit; try again when one has ended",
      );
      if (dialect === "native") expect(answer.code).toBe("limit_exceeded");
      expect(await daemon.runtime(sentinel)).toMatchObject({ binary: "/sentinel" });
      for (const one of open) one.wire.send(carry(dialect, PROGRAM));
      for (const one of open) expect(await one.answer()).toEqual({ Ok: null });
      await upload(control, PROGRAM);
    }));

  test("beyond 256 MiB is refused at once, and its connection ends (P-17)", () =>
    withDaemon(async (daemon) => {
      const control = await daemon.control(dialect);
      control.send({ AddWithBinary: { ...announce(PROGRAM), length: 256 * MIB + 1 } });
      control.wire.send(carry(dialect, PROGRAM));
      const answer = await control.answer();
      expect(answer.Err?.[0]).toStartWith("Cannot accept an upload of 268435457 bytes");
      if (dialect === "native") expect(answer.code).toBe("limit_exceeded");
      expect(await control.wire.rest()).toHaveLength(0);
    }));

  test("of 100 MB streams through, and the memory stays flat", () =>
    withDaemon(async (daemon) => {
      const block = Buffer.alloc(MIB, "0123456789abcdef\n");
      const hash = createHash("sha256");
      for (let i = 0; i < 100; i++) hash.update(block);
      const control = await daemon.control(dialect); // no earlier: strangers may not be silent long
      const id = crypto.randomUUID();
      const length = 100 * MIB;
      await control.ok({ AddWithBinary: { id, length, hash: [...hash.digest()] } });
      const before = daemon.memory();
      let highest = before;
      const piece = carry(dialect, block);
      for (let i = 0; i < 100; i++) {
        control.wire.send(piece);
        await control.wire.sent();
        highest = Math.max(highest, daemon.memory());
      }
      expect(await control.answer()).toEqual({ Ok: null });
      expect(highest - before).toBeLessThan(48 * MIB);
      expect(statSync((await daemon.runtime(id)).binary).size).toBe(length);
    }));
});

describe.each(DIALECTS)(
  "Requests hidden in the bytes of an upload in the %s dialect",
  (dialect) => {
    // Whole lines and whole frames, as both dialects would read them.
    const hidden = Buffer.concat([
      Buffer.from('\n"Clear"\n{"Stop":"x"}\n'),
      frame('"Clear"'),
      Buffer.from('\n"Clear"\n'),
    ]);
    const raw = Buffer.concat(Array.from({ length: 50 }, () => hidden));
    const bytes = dialect === "native" ? Buffer.concat([raw, carry("native", raw)]) : raw;

    /** What is wrong with the announcement; the bytes follow at once, as a client in a hurry does it. */
    const faults: [what: string, change: (good: Announcement, sentinel: string) => unknown][] = [
      ["nothing", (good) => good],
      ["the hash", (good) => ({ ...good, hash: good.hash.toReversed() })],
      ["a registered id", (good, sentinel) => ({ ...good, id: sentinel })],
      ["no UUID", (good) => ({ ...good, id: "x" })],
      ["no hash", ({ id, length }) => ({ id, length })],
      ["a short hash", (good) => ({ ...good, hash: [1, 2, 3] })],
      ["the length over the limit", (good) => ({ ...good, length: 2 ** 40 })],
      ["a length without bounds", (good) => ({ ...good, length: 2 ** 60 })],
      ["a length as text", (good) => ({ ...good, length: String(good.length) })],
      ["a fractional length", (good) => ({ ...good, length: good.length + 0.5 })],
      ["privileges of another kind", (good) => ({ ...good, privileged: "yes" })],
    ];

    test.each(faults)("are never carried out: %s is wrong (P-16, P-17)", (_what, change) =>
      withDaemon(async (daemon) => {
        const sentinel = await daemon.add("/sentinel");
        const control = await daemon.control(dialect);
        control.wire.send(
          Buffer.concat([
            encode(dialect, { AddWithBinary: change(announce(bytes), sentinel) }),
            carry(dialect, bytes),
          ]),
        );
        control.wire.finish();
        const text = (await control.wire.rest()).toString();
        expect(text.split('{"Ok":').length + text.split('{"Err":').length - 2).toBeLessThan(3);
        expect((await daemon.info()).runtimes).toHaveProperty(sentinel);
        expect(uploads(daemon).length).toBeLessThan(2);
      }),
    );

    const spellings: [what: string, spell: (request: string) => string][] = [
      ["its name with an escape", (request) => request.replace("With", "\\u0057ith")],
      ["the length twice", (request) => request.replace('"hash"', '"length":0,"hash"')],
      ["the request twice", (request) => request.replace(/}$/, ',"AddWithBinary":null}')],
    ];

    test.each(spellings)("are never carried out: %s (P-16, P-17)", (_what, spell) =>
      withDaemon(async (daemon) => {
        const sentinel = await daemon.add("/sentinel");
        const control = await daemon.control(dialect);
        const request = JSON.stringify({ AddWithBinary: { ...announce(bytes), id: "no UUID" } });
        const spelled = spell(request);
        control.wire.send(dialect === "native" ? frame(spelled) : `${spelled}\n`);
        control.wire.send(carry(dialect, bytes));
        control.wire.finish();
        await control.wire.rest();
        expect((await daemon.info()).runtimes).toHaveProperty(sentinel);
      }),
    );
  },
);

test("A frame of an upload that holds more than was announced ends the connection", () =>
  withDaemon(async (daemon) => {
    const control = await daemon.control("native");
    await control.ok({ AddWithBinary: announce(PROGRAM) });
    control.wire.send(frame(Buffer.concat([PROGRAM, Buffer.from("!")])));
    const { Err, code } = await control.answer();
    expect(Err?.[0]).toContain(`the upload ended ${PROGRAM.length} bytes before`);
    expect(code).toBe("upload_failed");
    expect(await control.wire.rest()).toHaveLength(0);
    expect(uploads(daemon)).toEqual([]);
  }));

test("Bytes behind an upload in the veecle dialect are read as requests again", () =>
  withDaemon(async (daemon) => {
    const control = await daemon.control("veecle");
    await control.ok({ AddWithBinary: announce(PROGRAM) });
    control.wire.send(Buffer.concat([PROGRAM, Buffer.from("surplus\n")]));
    expect(await control.answer()).toEqual({ Ok: null });
    expect((await control.answer()).Err?.[0]).toContain("not valid JSON");
    expect(await control.ok("Version")).toBe("0.1.0");
  }));

test("An uploaded program that has changed or is gone is not started, and an event tells why (P-13, P-50)", () =>
  withDaemon(async (daemon) => {
    const control = await daemon.control();
    const id = await upload(control, PROGRAM);
    const { binary } = await daemon.runtime(id);
    const refusal = `Cannot start instance "${id}": Cannot use the uploaded binary ${binary}`;
    chmodSync(binary, 0o700);
    appendFileSync(binary, "#");
    const changed = "its bytes are not those that were uploaded";
    expect((await control.ask({ Start: { id } })).Err).toEqual([refusal, changed]);
    rmSync(binary);
    const gone = ["it cannot be opened", "no such file or directory"];
    expect((await control.ask({ Start: { id } })).Err).toEqual([refusal, ...gone]);
    await control.ok({ Events: { ids: [id], last: 2 } });
    for (const reason of [changed, gone.join(": ")]) {
      const event = { kind: "start_failed", id, detail: { reason } };
      expect(JSON.parse(await control.item())).toMatchObject(event);
    }
  }));

test("The folder of uploads is the user's own", () =>
  withDaemon(async (daemon) => {
    await upload(await daemon.control(), PROGRAM);
    const [file] = uploads(daemon);
    const folder = join(daemon.stateFolder, file as string, "..");
    expect(statSync(folder).mode & 0o777).toBe(0o700);
  }));

test("An upload that the end of the daemon cuts off leaves no file (P-18)", () =>
  withDaemon(async (daemon) => {
    const control = await daemon.control("native");
    await control.ok({ AddWithBinary: announce(PROGRAM) });
    control.wire.send(frame(PROGRAM.subarray(1)));
    await until("it has begun", () => uploads(daemon).length === 1);
    await daemon.stopAll();
    expect(uploads(daemon)).toEqual([]);
  }));
