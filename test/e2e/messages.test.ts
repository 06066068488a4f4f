// Messages between instances: who gets which, in which form, and who pays when somebody is slow or mad.
//
// Most tests end with a second look at the accounts (P-37): what was received went along its links.

import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { DIALECT_WAIT_MS } from "../../src/limits.ts";
import { routeTo, speaker, withAccounts } from "../fixtures/accounts.ts";
import { GARBAGE } from "../fixtures/garbage.ts";
import { droppedOf } from "../support/accounts.ts";
import { withDaemon } from "../support/daemon.ts";
import {
  type Dialect,
  DIALECTS,
  KIND,
  message,
  native,
  nextFrame,
  nextMessage,
  storable,
  until,
  type Wire,
} from "../support/wire.ts";

setDefaultTimeout(60_000);

const KIB = 1024;
const MIB = 1024 * KIB;

async function expectNext(
  dialect: Dialect,
  wire: Wire,
  typeName: string,
  payload: string,
): Promise<void> {
  expect(await nextMessage(dialect, wire)).toEqual({ typeName, payload });
}

const PAYLOADS = [
  '{"value":7}',
  "",
  '"quoted" and \\ back\\\\slashed',
  "line\nbreak\r\ttab\b\f",
  "control \u0000\u0001\u001f characters",
  "ümlaut, 中文, 🦀, \u2028 and \ufeff",
  "</script>",
  "x".repeat(1_900),
];

describe.each(DIALECTS)("From an instance of the %s dialect", (from) => {
  describe.each(DIALECTS)("to one of the %s dialect", (to) => {
    test("every payload and type name arrives, in order and once (P-32, P-35)", () =>
      withAccounts(async (daemon) => {
        const [source, target] = [await speaker(daemon, from), await speaker(daemon, to)];
        const types = ["a::b::T", 'with "quotes" and \\', "ü::中::🦀", "t".repeat(1_000)];
        for (const type of types) await daemon.link(type, target.id);
        for (const type of types) {
          for (const payload of PAYLOADS) {
            if (type.length + payload.length > 2_000) continue;
            source.wire.send(message(from, type, payload));
          }
        }
        for (const type of types) {
          for (const payload of PAYLOADS) {
            if (type.length + payload.length > 2_000) continue;
            await expectNext(to, target.wire, type, payload);
          }
        }
        for (let i = 0; i < 10_000; i++)
          source.wire.send(message(from, types[i % 2] ?? "", `${i}`));
        for (let i = 0; i < 10_000; i++) {
          await expectNext(to, target.wire, types[i % 2] ?? "", `${i}`);
        }
        expect(target.wire.unreadBytes).toBe(0);
      }));

    test("bursts in both directions at once, and to itself, do not block", () =>
      withAccounts(async (daemon) => {
        const [a, b] = [await speaker(daemon, from), await speaker(daemon, to)];
        await daemon.link("to-b", b.id);
        await daemon.link("to-a", a.id);
        await daemon.link("self", a.id, a.id);
        const count = 10_000;
        for (let i = 0; i < count; i++) {
          a.wire.send(message(from, i % 2 === 0 ? "to-b" : "self", `${i}`));
          b.wire.send(message(to, "to-a", `${i}`));
        }
        for (let i = 0; i < count; i += 2) await expectNext(to, b.wire, "to-b", `${i}`);
        const seen = { self: 1, "to-a": 0 };
        for (let i = 0; i < 1.5 * count; i++) {
          const { typeName, payload } = await nextMessage(from, a.wire);
          const type = typeName as keyof typeof seen;
          expect(payload).toBe(`${seen[type]}`);
          seen[type] += type === "self" ? 2 : 1;
        }
      }));
  });

  test("what is wrong ends its connection only, and it may connect again at once (P-23)", () =>
    withAccounts(async (daemon) => {
      const [other, target] = [await speaker(daemon, "native"), await speaker(daemon, "veecle")];
      const bad = await daemon.puppet();
      await daemon.link("T", target.id);
      let count = 0;
      for (const [what, bytes] of GARBAGE[from]) {
        const wire = await bad.speak(from);
        wire.send(message(from, "T", `before ${what}`));
        wire.send(bytes);
        await wire.rest();
        await expectNext("veecle", target.wire, "T", `before ${what}`);
        other.wire.send(message("native", "T", `other ${what}`));
        await expectNext("veecle", target.wire, "T", `other ${what}`);
        expect((await daemon.runtime(bad.id)).messages.refused).toBe(++count);
        expect(await daemon.runtime(bad.id)).toMatchObject({ running: true, connected: false });
      }
      const wire = await bad.speak(from);
      wire.send(message(from, "T", "well again"));
      await expectNext("veecle", target.wire, "T", "well again");
    }));

  test("a message that is cut by the end of its connection is nobody's (P-4)", () =>
    withAccounts(async (daemon) => {
      const target = await speaker(daemon, "native");
      const puppet = await daemon.puppet();
      await daemon.link("T", target.id);
      const whole = message(from, "T", "cut");
      for (let cut = 1; cut < whole.length; cut += 9) {
        const wire = await puppet.speak(from);
        wire.send(Buffer.concat([message(from, "T", `${cut}`), whole.subarray(0, cut)]));
        await wire.sent();
        if (cut % 2 === 0) wire.close();
        else wire.finish();
        await expectNext("native", target.wire, "T", `${cut}`);
        await until("the connection ended", async () => {
          return !(await daemon.runtime(puppet.id)).connected;
        });
      }
      expect((await daemon.runtime(puppet.id)).messages.refused).toBe(0);
    }));

  test("a second connection is closed at once, and the first goes on (P-22)", () =>
    withAccounts(async (daemon) => {
      const [source, target] = [await speaker(daemon, from), await speaker(daemon, from)];
      await daemon.link("T", target.id);
      for (let i = 0; i < 3; i++) {
        const second = await source.puppet.connect();
        second.send(message(from, "T", "from the second"));
        expect(await second.rest()).toHaveLength(0);
        source.wire.send(message(from, "T", `${i}`));
        await expectNext(from, target.wire, "T", `${i}`);
      }
    }));
});

describe("The last line of an instance", () => {
  const line = message("veecle", "T", "last").subarray(0, -1);
  const endings: [what: string, end: (wire: Wire) => unknown][] = [
    ["ends its side", (wire) => wire.finish()],
    ["closes", (wire) => wire.close()],
  ];
  test.each(endings)("may lack its newline when the instance %s (P-2)", (_, end) =>
    withAccounts(async (daemon) => {
      const target = await speaker(daemon, "native");
      const puppet = await daemon.puppet();
      await daemon.link("T", target.id);
      const wire = await puppet.speak("veecle");
      wire.send(line);
      await wire.sent();
      end(wire);
      await expectNext("native", target.wire, "T", "last");
    }),
  );

  test("may lack it when the process is killed (P-2)", () =>
    withAccounts(async (daemon) => {
      const target = await speaker(daemon, "native");
      const puppet = await daemon.puppet();
      await daemon.link("T", target.id);
      const wire = await puppet.speak("veecle");
      wire.send(line);
      await wire.sent();
      process.kill((await daemon.runtime(puppet.id)).pid as number, "SIGKILL");
      await expectNext("native", target.wire, "T", "last");
    }));
});

describe("A link", () => {
  test("takes what its type and its source say, to each of its targets (P-34)", () =>
    withDaemon(async (daemon) => {
      const [a, b] = [await speaker(daemon, "native"), await speaker(daemon, "veecle")];
      const [x, y] = [await speaker(daemon, "native"), await speaker(daemon, "veecle")];
      await daemon.link("any", x.id);
      await daemon.link("any", y.id);
      await daemon.link("of-a", x.id, a.id);
      a.wire.send(message("native", "of-a", "a1"));
      await expectNext("native", x.wire, "of-a", "a1");
      b.wire.send(message("veecle", "of-a", "b1"));
      b.wire.send(message("veecle", "any", "b2"));
      await expectNext("veecle", y.wire, "any", "b2");
      a.wire.send(message("native", "none", "a2"));
      a.wire.send(message("native", "any", "a3"));
      await expectNext("native", x.wire, "any", "b2");
      await expectNext("native", x.wire, "any", "a3");
      await expectNext("veecle", y.wire, "any", "a3");
      const { messages } = await daemon.runtime(a.id);
      expect(messages).toEqual({ received: 3, unlinked: 1, refused: 0 });
      expect((await daemon.runtime(b.id)).messages).toMatchObject({ received: 2, unlinked: 1 });
      expect(await routeTo(daemon, x.id, "any")).toMatchObject({ from: null, routed: 2 });
      expect(await routeTo(daemon, x.id, "of-a")).toMatchObject({ from: a.id, routed: 1 });
    }));

  test("that is added twice, or with and without its source, delivers once (P-34)", () =>
    withAccounts(async (daemon) => {
      const [a, x] = [await speaker(daemon, "veecle"), await speaker(daemon, "veecle")];
      await daemon.link("T", x.id);
      await daemon.link("T", x.id);
      expect((await daemon.info()).routes).toHaveLength(1);
      await daemon.link("T", x.id, a.id);
      a.wire.send(storable("T", "1") + storable("T", "2"));
      await expectNext("veecle", x.wire, "T", "1");
      await expectNext("veecle", x.wire, "T", "2");
      a.wire.send(storable("T", "3"));
      await expectNext("veecle", x.wire, "T", "3");
      expect((await daemon.info()).links).toEqual({ T: [x.id] });
    }));

  test.each(DIALECTS)(
    "added and removed while messages flow decides about the next one (%s, P-34)",
    (d) =>
      withDaemon(async (daemon) => {
        const [a, x, y] = [
          await speaker(daemon, d),
          await speaker(daemon, d),
          await speaker(daemon, d),
        ];
        await daemon.link("T", x.id);
        let next = 0;
        let heard = 0;
        for (let round = 0; round < 20; round++) {
          for (let i = 0; i < 500; i++) a.wire.send(message(d, "T", `${next++}`));
          await until("they are routed", async () => {
            return (await daemon.runtime(a.id)).messages.received >= next;
          });
          await daemon.link("T", y.id);
          a.wire.send(message(d, "T", `${next}`));
          await expectNext(d, y.wire, "T", `${next++}`);
          await daemon.ok({ Unlink: { type_name: "T", to: y.id } });
        }
        for (; heard < next; heard++) await expectNext(d, x.wire, "T", `${heard}`);
        expect(y.wire.unreadBytes).toBe(0);
      }),
  );

  test.each(DIALECTS)("goes with its target, and nobody else notices (%s, P-40)", (d) =>
    withDaemon(async (daemon) => {
      const [a, x] = [await speaker(daemon, d), await speaker(daemon, d)];
      await daemon.link("T", x.id);
      let next = 0;
      const send = (): void => {
        for (let i = 0; i < 2_000; i++) a.wire.send(message(d, "T", `${next++}`));
      };
      for (let round = 0; round < 5; round++) {
        const y = await speaker(daemon, d);
        await until("the last round is routed", async () => {
          return (await daemon.runtime(a.id)).messages.received >= next;
        });
        await daemon.link("T", y.id);
        send();
        if (round % 2 === 0) y.wire.pause();
        else await expectNext(d, y.wire, "T", `${next - 2_000}`);
        send();
        await daemon.stop(y.id);
        send();
        await daemon.ok({ Remove: y.id });
        send();
      }
      for (let i = 0; i < next; i++) await expectNext(d, x.wire, "T", `${i}`);
      expect((await daemon.info()).links).toEqual({ T: [x.id] });
    }),
  );
});

describe("A message for an instance of the veecle dialect", () => {
  test("of 2048 bytes arrives, a longer one is dropped and counted (P-27, P-38)", () =>
    withAccounts(async (daemon) => {
      const [v, n] = [await speaker(daemon, "veecle"), await speaker(daemon, "native")];
      const target = await speaker(daemon, "veecle");
      await daemon.link("T", target.id);
      const fitting = "x".repeat(2_048 - (storable("T", "").length - 1));
      const begin = performance.now();
      for (const [dialect, wire] of [
        ["veecle", v.wire],
        ["native", n.wire],
      ] as const) {
        wire.send(message(dialect, "T", `${fitting}y`));
        wire.send(message(dialect, "T", fitting));
        wire.send(message(dialect, "T", fitting.replace("x", "ü"))); // one byte more
        wire.send(message(dialect, "T", fitting.replace("x", '"'))); // one escape more
        wire.send(message(dialect, "T", "x".repeat(500 * KIB)));
        wire.send(message(dialect, "T", `behind ${dialect}`));
        await expectNext("veecle", target.wire, "T", fitting);
        await expectNext("veecle", target.wire, "T", `behind ${dialect}`);
      }
      expect(await routeTo(daemon, target.id)).toMatchObject({
        delivered: 4,
        dropped: { oversize: 8 },
      });
      await daemon.loggedRarely(/dropped messages.*reason=oversize/, begin);
    }));

  test("that is not UTF-8 is dropped and counted, and reaches a native one as it is (P-32)", () =>
    withAccounts(async (daemon) => {
      const source = await speaker(daemon, "native");
      const [v, n] = [await speaker(daemon, "veecle"), await speaker(daemon, "native")];
      await daemon.link("T", v.id);
      await daemon.link("T", n.id);
      const bytes = Buffer.from([0xff, 0x00, 0xc3, 0x28, 0x0a]);
      source.wire.send(native(KIND.data, "T", bytes));
      source.wire.send(native(KIND.data, "T", "fine"));
      expect((await n.wire.frame()).subarray(5)).toEqual(bytes);
      await expectNext("native", n.wire, "T", "fine");
      await expectNext("veecle", v.wire, "T", "fine");
      expect((await routeTo(daemon, v.id)).dropped).toEqual({ not_utf8: 1 });
    }, 2));

  test("in any legal JSON form arrives in the usual one (P-26)", () =>
    withAccounts(async (daemon) => {
      const [source, target] = [await speaker(daemon, "veecle"), await speaker(daemon, "veecle")];
      await daemon.link("a::T", target.id);
      for (const line of [
        ' { "Storable" : { "value" : "7" , "type_name" : "a::T" } } \r\n',
        '{"Storable":{"type_name":"a::T","value":"7","later":[1,{"x":null}]}}\n',
        '{"\\u0053torable":{"type_name":"a:\\u003aT","value":"\\u0037"}}\n',
      ]) {
        source.wire.send(line);
        expect(await target.wire.line()).toBe('{"Storable":{"type_name":"a::T","value":"7"}}');
      }
    }));
});

describe("A native frame", () => {
  test("is handed on as it came, bits of later versions included (P-29, P-31)", () =>
    withAccounts(async (daemon) => {
      const [source, target] = [await speaker(daemon, "native"), await speaker(daemon, "native")];
      await daemon.link("T", target.id);
      const bytes = native(KIND.data, "T", Buffer.alloc(MIB - 5, 0xab)); // 1 MiB in all
      bytes[5] = 0b1010_0001;
      for (let i = 0; i < 3; i++) {
        source.wire.send(bytes);
        expect(await target.wire.bytes(bytes.length)).toEqual(bytes);
      }
    }));

  test("of an unknown kind is skipped and counted (P-29)", () =>
    withAccounts(async (daemon) => {
      const [source, target] = [await speaker(daemon, "native"), await speaker(daemon, "native")];
      await daemon.link("T", target.id);
      for (const kind of [0, 4, 6, 7, 200, 255]) {
        source.wire.send(native(kind, "T", "skipped"));
        source.wire.send(native(KIND.data, "T", `behind ${kind}`));
        await expectNext("native", target.wire, "T", `behind ${kind}`);
      }
      const { messages } = await daemon.runtime(source.id);
      expect(messages).toEqual({ received: 12, unlinked: 0, refused: 6 });
    }));

  test("of kind hello is answered with who we are and what we take (P-30)", () =>
    withAccounts(async (daemon) => {
      const puppet = await daemon.puppet();
      const wire = await puppet.connect();
      wire.send(native(KIND.hello, "", "{}"));
      const body = await wire.frame();
      expect([...body.subarray(0, 4)]).toEqual([KIND.hello, 0, 0, 0]);
      expect(JSON.parse(body.toString("utf8", 4))).toEqual({
        version: 1,
        id: puppet.id,
        limits: { frame: MIB, type_name: 1_024 },
      });
    }));
});

describe("The dialect of an instance", () => {
  test("is taken to be veecle until its first byte: lines first, then frames (P-1, P-24)", () =>
    withAccounts(async (daemon) => {
      const source = await speaker(daemon, "native");
      const puppet = await daemon.puppet();
      await daemon.link("T", puppet.id);
      const wire = await puppet.connect();
      for (let i = 0; i < 3; i++) {
        source.wire.send(native(KIND.data, "T", `${i}`));
        await expectNext("veecle", wire, "T", `${i}`);
      }
      expect(await daemon.runtime(puppet.id)).toMatchObject({ connected: true, dialect: null });
      wire.send(native(KIND.hello, "", "{}"));
      expect((await nextFrame(wire)).kind).toBe(KIND.hello);
      source.wire.send(native(KIND.data, "T", "a frame"));
      await expectNext("native", wire, "T", "a frame");
    }));

  test("is that of a first byte that came while the daemon was held up (P-24)", () =>
    withAccounts(async (daemon) => {
      const [source, target] = [await speaker(daemon, "native"), await daemon.puppet()];
      await daemon.link("T", target.id);
      for (let trial = 0, frames = 0; trial < 20 && frames < 3; trial++) {
        source.wire.send(native(KIND.data, "T", `${trial}`));
        await until("it waits", async () => (await routeTo(daemon, target.id)).queued > 0);
        const begin = performance.now();
        const wire = await target.connect();
        await until("it is accepted", async () => (await daemon.runtime(target.id)).connected);
        daemon.signal("SIGSTOP");
        const hasDialect = performance.now() - begin >= DIALECT_WAIT_MS; // perhaps: we are slow ourselves
        wire.send(native(KIND.hello, "", "{}"));
        for (let turn = 0; turn < 2; turn++) await target.print(""); // the puppet has handed it on
        await Bun.sleep(DIALECT_WAIT_MS);
        daemon.signal("SIGCONT");
        if (!hasDialect) {
          await expectNext("native", wire, "T", `${trial}`);
          frames++;
        }
        wire.close();
        await until("it is gone", async () => !(await daemon.runtime(target.id)).connected);
      }
    }));

  test("cannot be any other: a first byte of neither ends the connection (P-1)", () =>
    withAccounts(async (daemon) => {
      const puppet = await daemon.puppet();
      for (const bytes of ["GET / HTTP/1.1\r\n\r\n", "\n", "[1]\n", "\u00ff"]) {
        const wire = await puppet.connect();
        wire.send(bytes);
        expect(await wire.rest()).toHaveLength(0);
      }
      expect((await daemon.runtime(puppet.id)).messages.refused).toBe(4);
    }));
});

describe("An instance that does not read", () => {
  test.each(DIALECTS)(
    "does not slow another, and loses its oldest messages only (%s, P-36)",
    (dialect) =>
      withAccounts(async (daemon) => {
        const source = await speaker(daemon, dialect);
        const [silent, good] = [await speaker(daemon, dialect), await speaker(daemon, dialect)];
        await daemon.link("T", silent.id);
        await daemon.link("T", good.id);
        silent.wire.pause();
        let memory = 0;
        const filler = "x".repeat(990);
        let next = 0;
        for (let round = 0; round < 120; round++) {
          if (round === 20) memory = daemon.memory(); // its queue is full, and all code has run
          const first = next;
          const batch = [];
          for (; next < first + 1_000; next++)
            batch.push(message(dialect, "T", `${next} ${filler}`));
          source.wire.send(Buffer.concat(batch));
          for (let i = first; i < next; i++) {
            await expectNext(dialect, good.wire, "T", `${i} ${filler}`);
          }
        }
        const accounts = await routeTo(daemon, silent.id);
        expect(accounts.routed).toBe(next);
        expect(accounts.dropped["full"]).toBeGreaterThan(0);
        expect(await routeTo(daemon, good.id)).toMatchObject({ delivered: next, dropped: {} });
        expect(daemon.memory() - memory).toBeLessThan(64 * MIB); // and not the 100 MB that were sent
        silent.wire.resume();
        const seen: number[] = [];
        while (seen.at(-1) !== next - 1) {
          seen.push(Number.parseInt((await nextMessage(dialect, silent.wire)).payload));
        }
        const gap = seen.findIndex((n, i) => n !== i);
        expect(seen.slice(gap)).toEqual(
          Array.from({ length: seen.length - gap }, (_, i) => {
            return next - (seen.length - gap) + i;
          }),
        );
        const after = await routeTo(daemon, silent.id);
        expect(after).toMatchObject({ delivered: seen.length, queued: 0 });
      }, 2),
  );

  test("because it was never started keeps its newest messages until it connects (P-24, P-39)", () =>
    withAccounts(async (daemon) => {
      const source = await speaker(daemon, "native");
      const id = await daemon.add(daemon.program("puppet.ts"));
      await daemon.link("T", id);
      const count = 6_000;
      const filler = "x".repeat(990);
      for (let i = 0; i < count; i++) source.wire.send(native(KIND.data, "T", `${i} ${filler}`));
      await until("they are routed", async () => (await routeTo(daemon, id)).routed === count);
      const { queued, dropped } = await routeTo(daemon, id);
      expect(queued).toBeWithin(4_000, 4_300); // 4 MiB
      expect(dropped).toEqual({ full: count - queued });
      const wire = await (await daemon.startPuppet(id)).connect(); // says nothing: veecle lines
      // As lines they are a little longer: the oldest of them have no room any more.
      const first = Number.parseInt((await nextMessage("veecle", wire)).payload);
      expect(first).toBeWithin(count - queued, count - queued + 300);
      for (let i = first + 1; i < count; i++) {
        await expectNext("veecle", wire, "T", `${i} ${filler}`);
      }
      expect(await routeTo(daemon, id)).toMatchObject({
        delivered: count - first,
        dropped: { full: first },
        queued: 0,
      });
    }));

  test("because it ended gets nothing of before when it is started again (P-39)", () =>
    withAccounts(async (daemon) => {
      const source = await speaker(daemon, "native");
      const target = await speaker(daemon, "native");
      await daemon.link("T", target.id);
      const send = async (text: string): Promise<void> => {
        const { received } = (await daemon.runtime(source.id)).messages;
        source.wire.send(native(KIND.data, "T", text));
        await until("it is routed", async () => {
          return (await daemon.runtime(source.id)).messages.received > received;
        });
      };
      target.wire.pause();
      for (let i = 0; i < 20; i++) await send("x".repeat(100 * KIB)); // more than the kernel takes
      await daemon.stop(target.id);
      expect((await routeTo(daemon, target.id)).dropped["target_gone"]).toBeGreaterThan(0);
      const before = (await routeTo(daemon, target.id)).dropped["not_connected"] ?? 0;
      expect(before).toBeLessThan(2); // one that was cut when its connection ended
      await send("while it was stopped");
      expect((await routeTo(daemon, target.id)).dropped["not_connected"]).toBe(before + 1);
      const puppet = await daemon.startPuppet(target.id);
      await send("for the new one");
      const wire = await puppet.connect(native(KIND.hello, "", "{}"));
      await expectNext("native", wire, "T", "for the new one");
    }));

  test("and hangs up in the middle of a message gets the next ones whole when it is back (P-38)", () =>
    withAccounts(async (daemon) => {
      const [source, target] = [await speaker(daemon, "native"), await speaker(daemon, "native")];
      await daemon.link("T", target.id);
      const payload = (i: number): string => `${i} ${"x".repeat(300 * KIB)}`;
      target.wire.pause();
      for (let i = 0; i < 10; i++) source.wire.send(native(KIND.data, "T", payload(i)));
      await until("they are routed", async () => (await routeTo(daemon, target.id)).routed === 10);
      target.wire.close();
      await until("it is gone", async () => !(await daemon.runtime(target.id)).connected);
      const { delivered, queued, dropped } = await routeTo(daemon, target.id);
      expect(dropped).toEqual({ not_connected: 1 });
      const wire = await target.puppet.connect(native(KIND.hello, "", "{}"));
      for (let i = delivered + 1; i < 10; i++) await expectNext("native", wire, "T", payload(i));
      expect(queued).toBe(9 - delivered);
    }));

  test("is told what it lost, and so is who sent it, once a second (P-28, P-47)", () =>
    withAccounts(async (daemon) => {
      const [source, target] = [await speaker(daemon, "native"), await speaker(daemon, "native")];
      await daemon.link("T", target.id);
      target.wire.pause();
      const payload = "x".repeat(100 * KIB);
      for (let i = 0; i < 100; i++) source.wire.send(native(KIND.data, "T", payload));
      const { kind, typeName, payload: json } = await nextFrame(source.wire);
      expect([kind, typeName]).toEqual([KIND.notice, "T"]);
      expect(JSON.parse(json.toString())).toMatchObject({ reason: "full", to: target.id });
      await until("all are routed", async () => {
        return (await routeTo(daemon, target.id)).routed === 100;
      });
      target.wire.resume();
      let [messages, told] = [0, 0];
      const { dropped } = await routeTo(daemon, target.id);
      while (messages + told < 100) {
        const frame = await nextFrame(target.wire);
        if (frame.kind === KIND.data) messages++;
        else told += JSON.parse(frame.payload.toString()).count;
      }
      expect([messages, told]).toEqual([100 - droppedOf({ dropped }), droppedOf({ dropped })]);
      expect(source.wire.unreadBytes).toBeLessThan(1_000);
    }));
});
