// Who may control a daemon, and who may use the socket of an instance, with real users and processes.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";

import { type Daemon, withDaemon, withFolder } from "../support/daemon.ts";
import { piped } from "../support/screen.ts";
import { until, Wire } from "../support/wire.ts";

setDefaultTimeout(60_000);

const isRoot = process.getuid?.() === 0;
/** A user who is nobody's friend. */
const STRANGER = 65_534;

/** An address of this machine that is not loopback. */
const elsewhere = Object.values(networkInterfaces())
  .flat()
  .find((one) => one?.family === "IPv4" && !one.internal)?.address;

/** An IPv6 address that means something together with its interface only. */
const ofInterface = Object.entries(networkInterfaces())
  .flatMap(([name, found = []]) => found.map((one) => ({ ...one, name })))
  .find(({ address }) => address.startsWith("fe80:"));

/** What a client reads that sends one line, as another user. */
async function askAs(uid: number, port: number, line: string): Promise<string> {
  const script = `exec 3<>/dev/tcp/127.0.0.1/${port}; printf '%s\\n' '${line}' >&3; timeout 5 cat <&3`;
  const child = Bun.spawn({
    cmd: ["bash", "-c", script],
    uid,
    gid: uid,
    cwd: "/",
    env: { PATH: "/usr/bin:/bin" },
    stdio: ["ignore", "pipe", "ignore"],
  });
  return child.stdout.text();
}

/** Everything that one line is answered with before the connection ends. */
async function ask(address: string, ...lines: string[]): Promise<string> {
  const wire = await Wire.connect(address);
  wire.send(lines.map((line) => `${line}\n`).join(""));
  wire.finish();
  return (await wire.rest()).toString();
}

function portOf(daemon: Daemon): number {
  return Number(/:(\d+)$/.exec(daemon.address)?.[1]);
}

const TCP = { control: "127.0.0.1:0", args: ["--ephemeral"] };

describe("TCP control on loopback", () => {
  test("serves its own user without a token, as it always did (S5)", () =>
    withDaemon(async (daemon) => {
      expect(await ask(daemon.address, '"Version"')).toBe('{"Ok":"0.1.0"}\n');
      const remove = `{"Remove":"${crypto.randomUUID()}"}`;
      expect(await ask(daemon.address, remove)).toContain("Err");
      await daemon.logged(
        new RegExp(`audit: change asked for by="uid ${process.getuid?.()} 127\\.0\\.0\\.1:\\d+"`),
      );
    }, TCP));

  test.skipIf(!isRoot)("serves no other user (S5)", () =>
    withDaemon(async (daemon) => {
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => askAs(STRANGER, portOf(daemon), '"Clear"')),
      );
      const refusal = `{"Err":["Cannot serve this connection: it serves user 0, and you are user ${STRANGER}; ask as that user (sudo -u '#0'), or start an orchestrator of your own"]}\n`;
      expect(new Set(answers)).toEqual(new Set([refusal]));
      expect(daemon.log).not.toContain("Clear");
      expect(await ask(daemon.address, '"Version"')).toBe('{"Ok":"0.1.0"}\n');
    }, TCP),
  );
});

test.skipIf(elsewhere === undefined)(
  "64 connections from one other machine are served, and one more is told so; others are served on (S9)",
  () =>
    withDaemon(
      async (daemon) => {
        const address = `${elsewhere}:${portOf(daemon)}`;
        const wires: Wire[] = [];
        for (let i = 0; i < 64; i++) {
          const wire = await Wire.connect(address);
          wire.send('"Version"\n');
          expect(await wire.line()).toBe('{"Ok":"0.1.0"}');
          wires.push(wire);
        }
        const refusal = await ask(address, '"Version"');
        expect(refusal).toContain(
          `Cannot accept connection: 64 are open from ${elsewhere}, which is the limit for one machine`,
        );
        expect(await ask(`127.0.0.1:${portOf(daemon)}`, '"Version"')).toBe('{"Ok":"0.1.0"}\n');
        wires.pop()?.close();
        await until("another one is served", async () =>
          (await ask(address, '"Version"')).includes("Ok"),
        );
        for (const wire of wires) wire.close();
      },
      { control: "0.0.0.0:0", args: ["--ephemeral", "--insecure-tcp"] },
    ),
);

test.skipIf(elsewhere === undefined)(
  "8 uploads from one other machine are taken, and one more is told so; others are served on (S9)",
  () =>
    withDaemon(
      async (daemon) => {
        const address = `${elsewhere}:${portOf(daemon)}`;
        const begin = async (at: string): Promise<Wire> => {
          const wire = await Wire.connect(at);
          const hash = [...new Bun.CryptoHasher("sha256").update("x").digest()];
          const request = { AddWithBinary: { id: crypto.randomUUID(), length: 1, hash } };
          wire.send(`${JSON.stringify(request)}\n`);
          expect(await wire.line()).toBe('{"Ok":null}');
          return wire;
        };
        const wires: Wire[] = [];
        for (let i = 0; i < 8; i++) wires.push(await begin(address));
        const refused = await begin(address);
        refused.send("x");
        expect(await refused.line()).toContain(
          `8 are under way from ${elsewhere}, which is the limit for one machine`,
        );
        wires.push(await begin(`127.0.0.1:${portOf(daemon)}`));
        for (const wire of wires) wire.send("x");
        for (const wire of wires) expect(await wire.line()).toBe('{"Ok":null}');
        for (const wire of [...wires, refused]) wire.close();
      },
      { control: "0.0.0.0:0", args: ["--ephemeral", "--insecure-tcp"] },
    ),
);

describe("a token", () => {
  test("is made by token new, for its owner's eyes only, and never over a file that is there (S5)", () =>
    withFolder(async (folder) => {
      const file = join(folder, "token");
      const made = await piped(["token", "new", file, "-q"], {});
      expect(made).toEqual({ code: 0, out: `${file}\n`, err: "" });
      expect(statSync(file).mode & 0o777).toBe(0o600);
      expect(readFileSync(file, "utf8")).toMatch(/^[A-Za-z0-9_-]{43}\n$/);
      const again = await piped(["token", "new", file], {});
      expect(again.code).toBe(1);
      expect(again.err).toContain("file already exists");
    }));

  test("that others may read, that is a link, or that is none is refused (S5)", () =>
    withFolder(async (folder, launch) => {
      const file = join(folder, "token");
      const refused = async (reason: string): Promise<void> => {
        const ended = await launch(["--token-file", file]).end();
        expect(ended.code).toBe(1);
        expect(ended.stderr).toContain(reason);
      };
      await refused("no such file");
      writeFileSync(file, "0123456789abcdef\n", { mode: 0o640 });
      await refused("others may read it");
      chmodSync(file, 0o600);
      writeFileSync(file, "0123456789abcde\n");
      await refused("it is not one word of 16 to 4096 bytes");
      const link = join(folder, "link");
      symlinkSync(file, link);
      const ended = await launch(["--token-file", link]).end();
      expect(ended.stderr).toContain("it is a link");
    }));

  test("or the word that none is needed is asked for at the start, where other machines can connect (S5)", () =>
    withFolder(async (_folder, launch) => {
      const ended = await launch(["--control-socket", "0.0.0.0:0"]).end();
      expect(ended.code).toBe(2);
      expect(ended.stderr).toContain("other machines reach it, and there is no token");
      expect(ended.stderr).toContain("hint: make one with");
    }));

  test.skipIf(elsewhere === undefined)(
    "opens a daemon to other addresses, and nothing else does (P-55, S5)",
    () =>
      withFolder(async (folder) => {
        const file = join(folder, "token");
        await piped(["token", "new", file, "-q"], {});
        const token = readFileSync(file, "utf8").trim();
        const args = ["--ephemeral", "--token-file", file];
        await withDaemon(
          async (daemon) => {
            const address = `${elsewhere}:${portOf(daemon)}`;
            const refusal = (reason: string): string =>
              `{"Err":["Cannot serve this connection: ${reason}"]}\n`;
            expect(await ask(address, '"Clear"', '"Version"')).toBe(
              refusal("it needs a token first"),
            );
            expect(await ask(address, "{nonsense")).toBe(refusal("it needs a token first"));
            expect(await ask(address, `{"Token":"${token}x"}`, '"Clear"')).toBe(
              refusal("the token is another one"),
            );
            expect(daemon.log).not.toContain("processed request");
            expect(await ask(address, `{"Token":"${token}"}`, '"Version"')).toBe(
              '{"Ok":null}\n{"Ok":"0.1.0"}\n',
            );
            const command = ["version", "--socket", address];
            const without = await piped(command, {});
            expect(without.code).toBe(7);
            expect(without.err).toContain("hint: name its token with --token-file FILE");
            expect((await piped([...command, "--token-file", file], {})).code).toBe(0);
            const named = await piped(command, { VEECLE_ORCHESTRATOR_TOKEN_FILE: file });
            expect(named).toEqual({ code: 0, out: "server version: 0.1.0\n", err: "" });
            const next = `${token}2`;
            writeFileSync(file, next);
            expect(await ask(address, `{"Token":"${token}"}`)).toBe(
              refusal("the token is another one"),
            );
            expect(await ask(address, `{"Token":"${next}"}`)).toBe('{"Ok":null}\n');
            rmSync(file); // that is a mistake, and not a word
            expect(await ask(address, `{"Token":"${next}"}`)).toBe('{"Ok":null}\n');
            await daemon.logged(/cannot read the token again/);
            expect(daemon.log).not.toContain(token);
            expect(readFileSync(`/proc/${daemon.pid}/cmdline`, "utf8")).not.toContain(token);
          },
          { control: "0.0.0.0:0", args },
        );
      }),
  );
});

describe("the socket of an instance", () => {
  const socketOf = (daemon: Daemon, id: string): string => {
    const found = readdirSync(daemon.runFolder, { recursive: true, encoding: "utf8" }).find(
      (name) => name.includes(id),
    );
    return join(daemon.runFolder, found as string);
  };

  test("serves nobody but its own processes (P-57, S3)", () =>
    withDaemon(async (daemon) => {
      const puppet = await daemon.puppet();
      const other = await daemon.puppet();
      const path = socketOf(daemon, puppet.id);
      for (let attempt = 0; attempt < 50; attempt++) {
        // It may be reset before it has noticed that it was connected.
        const intruder = await Wire.connect(path).catch(() => undefined);
        intruder?.send('{"Storable":{"type_name":"a::T","value":"1"}}\n');
        expect((await intruder?.rest())?.length ?? 0).toBe(0);
      }
      await daemon.logged(/refused a process that is not of the instance .*pid=\d+/);
      await puppet.connect();
      await other.connect();
      expect(await daemon.runtime(puppet.id)).toMatchObject({
        connected: true,
        messages: { received: 0 },
      });
    }));

  test("serves a child of its process, in a session of its own (S3)", () =>
    withDaemon(async (daemon) => {
      const runtime = join(import.meta.dir, "../../src/runtime.ts");
      const child = daemon.script(
        `#!${process.execPath}\nimport { connectRuntime } from ${JSON.stringify(runtime)};\n` +
          'const runtime = await connectRuntime();\nruntime.send("a::T", "1");\nawait runtime.closed;\n',
      );
      const id = await daemon.add(
        daemon.script(`#!/bin/sh\nsetsid ${child} &\ntrap "kill $!" INT\nwait\n`),
      );
      await daemon.start(id);
      await until("it has sent", async () => {
        const { messages } = await daemon.runtime(id);
        return messages.received === 1 ? true : undefined;
      });
      await daemon.stop(id);
    }));
});

describe("datagrams", () => {
  test("are taken from declared orchestrators only, once one is declared, and the others counted (P-56)", () =>
    withDaemon(
      async (daemon) => {
        const to = Number((await daemon.ipcAddress()).split(":")[1]);
        const send = async (hostname: string): Promise<void> => {
          const socket = await Bun.udpSocket({ hostname });
          socket.send('{"type_name":"a::T","value":"1"}', to, "127.0.0.1");
          socket.close();
        };
        await send("127.0.0.2");
        await until("the stranger is counted", async () =>
          (await daemon.info()).peers.strangers === 1 ? true : undefined,
        );
        await daemon.logged(/orchestrator that is not declared from=127\.0\.0\.2:\d+/);
        await send("127.0.0.3");
        await until("the declared one is heard", async () =>
          (await daemon.info()).peers.received === 1 ? true : undefined,
        );
        expect((await daemon.info()).peers).toEqual({
          received: 1,
          unlinked: 1,
          refused: 0,
          strangers: 1,
        });
      },
      { args: ["--ipc-socket", "127.0.0.1:0", "--peer", "127.0.0.3"] },
    ));

  test("of a stranger are told with the words that declare it, also over IPv6", () =>
    withDaemon(
      async (daemon) => {
        const to = Number((await daemon.ipcAddress()).split(":").at(-1));
        const socket = await Bun.udpSocket({ hostname: "::1" });
        socket.send('{"type_name":"a::T","value":"1"}', to, "::1");
        socket.close();
        await daemon.logged(/not declared from=".*" refused=1 hint="daemon --peer \[::1\]"/);
      },
      { args: ["--ipc-socket", "[::1]:0", "--peer", "[::2]"] },
    ));

  test.skipIf(ofInterface === undefined)(
    "are taken from an address of one interface, by its number and by its name",
    async () => {
      const { address, scopeid, name } = ofInterface as NonNullable<typeof ofInterface>;
      for (const zone of [scopeid, name]) {
        await withDaemon(
          async (daemon) => {
            const to = Number((await daemon.ipcAddress()).split(":").at(-1));
            const socket = await Bun.udpSocket({ hostname: "::" });
            socket.send('{"type_name":"a::T","value":"1"}', to, `${address}%${name}`);
            await until("it is heard", async () => {
              const { received, strangers } = (await daemon.info()).peers;
              expect(strangers).toBe(0);
              return received === 1 ? true : undefined;
            });
            socket.close();
          },
          { args: ["--ipc-socket", "[::]:0", "--peer", `[${address}%${zone}]`] },
        );
      }
    },
  );
});
