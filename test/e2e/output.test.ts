// What instances print: who gets it, from when on, until when, and who pays for a slow reader.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { type Daemon, withDaemon } from "../support/daemon.ts";
import { type Control, type Dialect, DIALECTS, encode, until } from "../support/wire.ts";

setDefaultTimeout(60_000);

const MIB = 2 ** 20;

/** Far more than the daemon may hold, and done within the time on a slow machine. */
const FLOOD_MIB = 96;
const FLOOD_MS = 50_000;

async function follow(daemon: Daemon, id: string, dialect?: Dialect): Promise<Control> {
  const follower = await daemon.control(dialect);
  await follower.ok({ Stdout: id });
  return follower;
}

/** The files that hold an instance's output, oldest first; none if it has no folder. */
function filesOf(daemon: Daemon, id: string): string[] {
  const all = join(daemon.stateFolder, "veecle-orchestrator");
  const [own] = readdirSync(all);
  const folder = join(all, own as string, "output", id);
  try {
    return readdirSync(folder)
      .sort()
      .map((name) => join(folder, name));
  } catch {
    return [];
  }
}

/** The records on disk of an instance that has ended. */
function recordsOf(daemon: Daemon, id: string): { time: number; stream: string; text: string }[] {
  return filesOf(daemon, id).flatMap((path) => {
    const text = readFileSync(path, "latin1");
    const records = [];
    for (let at = 0; at < text.length;) {
      const head = /^@(\d{13}) ([oen]) (\d{10}) \d{10}\n$/.exec(text.slice(at, at + 39));
      if (head === null) throw new Error(`No header at ${at} of ${path}`);
      const [, time, stream, length] = head;
      const end = at + 39 + Number(length);
      records.push({
        time: Number(time),
        stream: stream as string,
        text: text.slice(at + 39, end),
      });
      at = end;
    }
    return records;
  });
}

/** The highest memory of the daemon while `work` is under way, less what it had before. */
async function memoryDuring(daemon: Daemon, work: Promise<unknown>): Promise<number> {
  const before = daemon.memory();
  let highest = before;
  let isDone = false;
  const watched = work.finally(() => (isDone = true));
  while (!isDone) {
    highest = Math.max(highest, daemon.memory());
    await Bun.sleep(5);
  }
  await watched;
  return highest - before;
}

describe.each(DIALECTS)("A follower in the %s dialect", (dialect) => {
  test("gets what an instance prints from now on, on both streams (P-19)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const first = await follow(daemon, puppet.id, dialect);
      await puppet.print("one\n");
      expect(await first.item()).toBe("one");
      const second = await follow(daemon, puppet.id, dialect);
      await puppet.print("two\n", "stderr");
      expect(await first.item()).toBe("two");
      expect(await second.item()).toBe("two");
      await puppet.print("three\r\n\nfo");
      await puppet.print("ur\n");
      for (const follower of [first, second]) {
        expect(await follower.item()).toBe("three\r");
        expect(await follower.item()).toBe("");
        expect(await follower.item()).toBe("four");
      }
    }));

  test("stays across stops and starts until the instance is removed (P-19)", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("talker.sh", 1, 2, "both"));
      const follower = await follow(daemon, id, dialect);
      for (let i = 0; i < 3; i++) {
        await daemon.start(id);
        const lines = [];
        for (let line = 0; line < 4; line++) lines.push(await follower.item());
        expect(lines.sort()).toEqual(["err 1", "err 2", "out 1", "out 2"]);
        await daemon.ended(id);
      }
      expect(follower.wire.isEnded).toBe(false);
      await daemon.ok({ Remove: id });
      expect(await follower.wire.rest()).toHaveLength(0);
    }));

  test("gets everything that was printed before a removal", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("talker.sh", 1, 2_000));
      const follower = await follow(daemon, id, dialect);
      follower.wire.pause();
      await daemon.start(id);
      await daemon.ended(id);
      await daemon.ok({ Remove: id });
      follower.wire.resume();
      for (let n = 1; n <= 2_000; n++) expect(await follower.item()).toBe(`out ${n}`);
      expect(await follower.wire.rest()).toHaveLength(0);
    }));

  test("that ends its own side goes on getting lines", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const follower = await follow(daemon, puppet.id, dialect);
      follower.wire.finish();
      for (let i = 0; i < 3; i++) {
        await puppet.print(`line ${i}\n`);
        expect(await follower.item()).toBe(`line ${i}`);
      }
    }));

  test("cannot send requests on its connection any more (P-19)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const follower = await daemon.control(dialect);
      follower.wire.send(
        Buffer.concat([encode(dialect, { Stdout: puppet.id }), encode(dialect, "Clear")]),
      );
      expect(await follower.answer()).toEqual({ Ok: null });
      follower.send("Clear");
      await puppet.print("still here\n");
      expect(await follower.item()).toBe("still here");
      expect(await daemon.runtime(puppet.id)).toMatchObject({ running: true });
    }));

  test("gets bytes as they are", () =>
    withDaemon(async (daemon) => {
      const text = "#!/bin/sh\nprintf 'a\\377\\000\\033[31m\\n'\n";
      const id = await daemon.add(daemon.script(text));
      const follower = await follow(daemon, id, dialect);
      await daemon.start(id);
      const bytes = Buffer.from("a\xff\0\x1b[31m", "latin1");
      if (dialect === "native") expect(await follower.wire.frame()).toEqual(bytes);
      else expect(await follower.wire.bytes(9)).toEqual(Buffer.concat([bytes, Buffer.from("\n")]));
    }));

  test("gets a long line in pieces of at most 64 KiB, however it arrives (P-19)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const follower = await follow(daemon, puppet.id, dialect);
      for (const length of [65_536, 65_537, 150_000, 70_000, 300_000]) {
        const line = Array.from({ length }, (_, i) => String.fromCharCode(97 + (i % 23))).join("");
        await puppet.print(line.slice(0, 10_000));
        await puppet.print(`${line.slice(10_000)}\n`);
        for (let got = 0; got < length;) {
          const piece = await follower.item();
          expect(piece.length).toBeWithin(1, 65_537);
          expect(piece).toBe(line.slice(got, got + piece.length));
          got += piece.length;
        }
        await puppet.print(`behind ${length}\n`);
        const next = await follower.item();
        expect(next === "" ? await follower.item() : next).toBe(`behind ${length}`);
      }
    }));
});

describe("The last line of a process", () => {
  test("is finished when it has no end", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("crasher.sh", "code", 0, "no newline"));
      const follower = await follow(daemon, id);
      for (let i = 0; i < 20; i++) {
        await daemon.start(id);
        await daemon.ended(id);
      }
      for (let i = 0; i < 20; i++) expect(await follower.item()).toBe("no newline");
    }));

  test("never becomes the beginning of its successor's first line", () =>
    withDaemon(async (daemon) => {
      const marker = join(daemon.folder, "marker");
      const id = await daemon.add(daemon.program("escaper.sh", "leave", "unfinished", marker));
      const follower = await follow(daemon, id);
      for (let i = 0; i < 2; i++) {
        await daemon.start(id);
        expect((await daemon.ended(id)).exit).toEqual({ code: 0 });
      }
      for (const { pid } of daemon.processes()) process.kill(pid, "SIGKILL");
      const lines = [];
      for (let i = 0; i < 4; i++) lines.push((await follower.item()).replace(/\d+$/, "PID"));
      expect(lines.sort()).toEqual(["ready PID", "ready PID", "unfinished", "unfinished"]);
    }));
});

describe("A follower that never reads", () => {
  test("loses its oldest lines, is told how many, and disturbs nobody else (P-19)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const [slow, good] = [await follow(daemon, puppet.id), await follow(daemon, puppet.id)];
      slow.wire.pause();
      let printed = 0;
      for (let block = 0; block < 80; block++) {
        const lines = Array.from({ length: 1_000 }, () => `${printed++} ${"x".repeat(50)}`);
        await puppet.print(`${lines.join("\n")}\n`);
        for (const line of lines) expect(await good.item()).toBe(line);
      }
      slow.wire.resume();
      let next = 0;
      let notes = 0;
      while (next < printed) {
        const line = await slow.item();
        const dropped = /^\[.* (\d+) lines dropped/.exec(line);
        if (dropped === null) expect(line).toBe(`${next++} ${"x".repeat(50)}`);
        else next += Number(dropped[1]);
        if (dropped !== null) notes++;
      }
      expect(notes).toBeGreaterThan(0);
      await puppet.print("the end\n");
      expect(await slow.item()).toBe("the end");
    }));

  test("does not hold up a child that prints as fast as it can, nor fill the memory", () =>
    withDaemon(async (daemon) => {
      const go = join(daemon.folder, "go");
      const id = await daemon.add(daemon.program("flooder.sh", FLOOD_MIB, go));
      const silent = [await follow(daemon, id), await follow(daemon, id, "native")];
      for (const { wire } of silent) wire.pause();
      await daemon.start(id);
      writeFileSync(go, "");
      let answersMeanwhile = 0;
      const flood = until(
        "the flooder is done",
        async () => {
          expect(await daemon.ok("Version")).toBe("0.1.0");
          if ((await daemon.runtime(id)).state === "stopped") return true;
          answersMeanwhile++;
          return false;
        },
        FLOOD_MS,
      );
      expect(await memoryDuring(daemon, flood)).toBeLessThan(64 * MIB);
      expect(answersMeanwhile).toBeGreaterThan(0);
      expect((await daemon.runtime(id)).exit).toEqual({ code: 7 });
    }));
});

test("A child prints as fast as it can while nobody follows, and the memory stays flat", () =>
  withDaemon(async (daemon) => {
    const id = await daemon.add(daemon.program("flooder.sh", FLOOD_MIB));
    await daemon.start(id);
    const flood = until(
      "the flooder is done",
      async () => {
        return (await daemon.runtime(id)).state === "stopped";
      },
      FLOOD_MS,
    );
    expect(await memoryDuring(daemon, flood)).toBeLessThan(64 * MIB);
    expect((await daemon.runtime(id)).exit).toEqual({ code: 7 });
  }));

describe("On disk", () => {
  const CAP = 3 * 10 * MIB;

  /** Starts it, and waits for its end; the most that its files held, and how memory grew. */
  async function flood(
    daemon: Daemon,
    id: string,
  ): Promise<{ diskBytes: number; memoryBytes: number }> {
    let diskBytes = 0;
    await daemon.start(id);
    const done = until(
      "the flooder is done",
      async () => {
        const sizes = filesOf(daemon, id).map((path) => {
          return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
        });
        diskBytes = Math.max(
          diskBytes,
          sizes.reduce((sum, size) => sum + size, 0),
        );
        return (await daemon.runtime(id)).state === "stopped";
      },
      25_000,
    );
    return { memoryBytes: await memoryDuring(daemon, done), diskBytes };
  }

  test("is what an instance printed, with its time and its stream, until it is removed", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("talker.sh", 1, 2, "both"));
      const before = Date.now();
      for (let i = 0; i < 2; i++) {
        await daemon.start(id);
        await daemon.ended(id);
        await until("it is written", () => {
          return (
            recordsOf(daemon, id)
              .map(({ text }) => text)
              .join("").length ===
            24 * (i + 1)
          );
        });
      }
      const records = recordsOf(daemon, id);
      const printed = (stream: string): string =>
        records.flatMap((one) => (one.stream === stream ? one.text : [])).join("");
      expect(printed("o")).toBe("out 1\nout 2\n".repeat(2));
      expect(printed("e")).toBe("err 1\nerr 2\n".repeat(2));
      for (const { time } of records) expect(time).toBeWithin(before - 5, Date.now() + 5);
      await daemon.ok({ Remove: id });
      await until("its files are gone", () => filesOf(daemon, id).length === 0);
    }));

  test("is the end of what was printed, whole and within the cap, and costs no memory (R17)", () =>
    withDaemon(async (daemon) => {
      const add = async (count: number): Promise<string> =>
        daemon.add(daemon.script(`#!/bin/sh\nexec seq 1 ${count}\n`));
      await flood(daemon, await add(4_000_000)); // code is loaded when it first runs
      // When the engine collects is its own affair: what one of two floods costs is what it takes.
      const before = await flood(daemon, await add(12_000_000));
      const count = 23_000_000; // 200 MB
      const id = await add(count);
      const { diskBytes, memoryBytes } = await flood(daemon, id);
      expect(Math.min(before.memoryBytes, memoryBytes)).toBeLessThan(16 * MIB);
      expect(diskBytes).toBeWithin(CAP / 2, CAP + 1);
      const records = recordsOf(daemon, id);
      let next: number | undefined;
      for (const { stream, text } of records) {
        const dropped = stream === "n" ? / (\d+) lines dropped/.exec(text) : null;
        if (dropped !== null) next = (next as number) + Number(dropped[1]);
        else {
          for (let at = 0; at < text.length;) {
            const end = text.indexOf("\n", at);
            const number = Number(text.slice(at, end));
            if (number !== (next ?? number)) throw new Error(`${number} instead of ${next}`);
            next = number + 1;
            at = end + 1;
          }
        }
      }
      expect(next).toBe(count + 1);
    }));

  test("is a line without an end in pieces, within the cap, and costs no memory (R17)", () =>
    withDaemon(async (daemon) => {
      const script = "#!/bin/sh\nhead -c 100M /dev/zero | tr '\\0' x\n";
      const add = (): Promise<string> => daemon.add(daemon.script(script));
      const [first, second, id] = [await add(), await add(), await add()];
      await flood(daemon, first);
      // When the engine collects is its own affair: what one of two floods costs is what it takes.
      const before = await flood(daemon, second);
      const { diskBytes, memoryBytes } = await flood(daemon, id);
      expect(Math.min(before.memoryBytes, memoryBytes)).toBeLessThan(16 * MIB);
      expect(diskBytes).toBeWithin(CAP / 2, CAP + 1);
      const lines = recordsOf(daemon, id).flatMap(({ text }) => text.split("\n").slice(0, -1));
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(64 * 1024);
    }));

  test("is for nobody else, whatever the umask is (S1)", () =>
    withDaemon(async (daemon) => {
      const id = await daemon.add(daemon.program("talker.sh", 1, 2));
      await daemon.start(id);
      const [path] = await until("it is written", () => {
        const files = filesOf(daemon, id);
        return files.length > 0 && files;
      });
      expect(statSync(path as string).mode & 0o777).toBe(0o600);
      expect(statSync(join(path as string, "..")).mode & 0o777).toBe(0o700);
      expect(statSync(join(path as string, "../..")).mode & 0o777).toBe(0o700);
      await daemon.ended(id);
    }));
});

test("A follower that goes away while the instance is silent leaves no descriptor open", () =>
  withDaemon(async (daemon) => {
    const puppet = await daemon.puppet();
    await daemon.info();
    const before = daemon.descriptors().length;
    for (const isHalfClosed of [false, true]) {
      const follower = await follow(daemon, puppet.id);
      if (isHalfClosed) follower.wire.finish();
      follower.wire.close();
      await until("its descriptor is closed", () => daemon.descriptors().length <= before);
    }
  }));

describe("Output (P-51)", () => {
  /** Every item of a stream that ends. */
  async function items(daemon: Daemon, query: object, dialect: Dialect = "native") {
    const control = await daemon.control(dialect);
    await control.ok({ Output: query });
    if (dialect === "native") {
      const found: Record<string, unknown>[] = [];
      for (;;) {
        const text = await control.item().catch(() => undefined);
        if (text === undefined) return found;
        found.push(JSON.parse(text));
      }
    }
    const lines = (await control.wire.rest()).toString().split("\n").slice(0, -1);
    return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  test.each(["veecle", "native"] as const)(
    "tells what was printed before, in order of time, in the %s dialect",
    (dialect) =>
      withDaemon(async (daemon) => {
        const [a, b] = [await daemon.puppet(), await daemon.puppet()];
        let printed = 0;
        for (let i = 0; i < 3; i++) {
          for (const puppet of [a, b]) {
            await puppet.print(`${i}\n`, i === 1 ? "stderr" : "stdout");
            printed++;
            await until("it is kept", async () => (await items(daemon, {})).length === printed);
            const before = Date.now();
            await until("another millisecond", () => Date.now() > before);
          }
        }
        const found = await items(daemon, {}, dialect);
        expect(found.map(({ id, line }) => [id, line])).toEqual(
          [0, 1, 2].flatMap((i) => [a.id, b.id].map((id) => [id, `${i}`])),
        );
        const times = found.map(({ time }) => time as number);
        expect(times).toEqual(times.toSorted());
        const texts = async (query: object): Promise<unknown[]> =>
          (await items(daemon, query, dialect)).map(({ line }) => line);
        expect(await texts({ ids: [b.id], last: 2 })).toEqual(["1", "2"]);
        expect(await texts({ ids: [a.id], stream: "stderr" })).toEqual(["1"]);
        expect(await texts({ since: times[4] })).toEqual(["2", "2"]);
        expect(await texts({ until: times[1] })).toEqual(["0", "0"]);
        expect(await texts({ ids: [] })).toEqual([]);
      }),
  );

  test("goes on with what comes, without a gap, also after a restart of the instance", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      await puppet.print("before\n");
      const control = await daemon.control();
      await control.ok({ Output: { ids: [puppet.id], follow: true } });
      const next = async (): Promise<unknown> => JSON.parse(await control.item()).line;
      expect(await next()).toBe("before");
      for (let i = 0; i < 100; i++) await puppet.print(`${i}\n`);
      for (let i = 0; i < 100; i++) expect(await next()).toBe(`${i}`);
      await daemon.stop(puppet.id);
      const again = await daemon.startPuppet(puppet.id);
      await again.print("again\n");
      expect(await next()).toBe("again");
    }));

  test("of an instance that is not registered is refused", () =>
    withDaemon(async (daemon) => {
      const id = crypto.randomUUID();
      expect(await daemon.ask({ Output: { ids: [id] } })).toMatchObject({ code: "not_found" });
      expect(await daemon.ask({ Output: { stream: "both" } })).toMatchObject({
        Err: ['Cannot parse request: Output.stream is unknown: "both"; it is stdout, stderr'],
      });
    }));
});

test("Folders of output stay the user's own and of use, whatever is added meanwhile (S1)", () =>
  withDaemon(async (daemon) => {
    const control = await daemon.control();
    for (let i = 0; i < 100; i++) {
      const id = crypto.randomUUID();
      const requests = [
        { Add: { id, path: "/bin/echo", args: ["x"] } },
        { Start: id },
        { Add: { id: crypto.randomUUID(), path: "/bin/echo" } }, // another socket, at that moment
      ];
      control.wire.send(Buffer.concat(requests.map((each) => encode("veecle", each))));
      for (const _ of requests) expect(await control.answer()).toEqual({ Ok: null });
    }
    const modes = (): number[] =>
      readdirSync(daemon.stateFolder, { recursive: true, encoding: "utf8" })
        .filter((path) => /\/output\/[^/]+$/.test(path))
        .map((path) => statSync(join(daemon.stateFolder, path)).mode & 0o777);
    await until("all have printed", () => modes().length === 100);
    expect(new Set(modes())).toEqual(new Set([0o700]));
  }));
