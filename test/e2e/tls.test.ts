// Control over TCP with TLS: who is trusted by whom, and what others are told.

import { expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { readTls, renewTls } from "../../src/daemon/access.ts";
import type { DaemonOptions } from "../../src/daemon/options.ts";
import { CERTIFICATE_LOOK_MS, HANDSHAKE_MS, MAX_HANDSHAKES } from "../../src/limits.ts";
import { Log, parseLogFilter } from "../../src/log.ts";
import { listen, type ServerTls } from "../../src/socket.ts";
import { type Daemon, withDaemon, withFolder } from "../support/daemon.ts";
import { FakeHost } from "../support/host.ts";
import { type Piped, piped } from "../support/screen.ts";
import { until, Wire } from "../support/wire.ts";

setDefaultTimeout(60_000);

const file = (name: string): string => join(import.meta.dir, "../fixtures/tls", name);

const SERVER = ["--ephemeral", "--tls-cert", file("daemon.pem"), "--tls-key", file("daemon.key")];
const CA = ["--tls-ca", file("ca.pem")];
const OWN = ["--tls-cert", file("client.pem"), "--tls-key", file("client.key")];

function ask(daemon: { readonly port: string }, ...options: readonly string[]): Promise<Piped> {
  return piped(["version", "--socket", `localhost:${daemon.port}`, ...options], {});
}

/** A daemon that speaks TLS; the audit of others asks without. */
async function withTls(
  args: readonly string[],
  body: (daemon: { port: string; folder: string; pid: number }) => Promise<void>,
): Promise<string> {
  let log = "";
  await withFolder(async (folder, launch) => {
    const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const port = String(probe.port);
    probe.stop(true);
    const daemon = launch(["--control-socket", `localhost:${port}`, ...SERVER, ...args]);
    const address = { port };
    while ((await ask(address, ...CA, ...OWN)).code === 5) {} // until it listens
    await body({ port, folder, pid: daemon.process.pid });
    const ended = await daemon.end("SIGTERM");
    expect(ended.code).toBe(0);
    expect(ended.stderr).not.toContain("defect");
    log = ended.stderr;
  });
  return log;
}

/** The beginning of a handshake, which says that 512 bytes follow. */
const HALF_HELLO = Buffer.from("1603010200010001fc0303", "hex");

/** Everything that comes back to bytes that are sent as they are, until the connection ends. */
async function answerTo(port: string, bytes: string | Buffer): Promise<Buffer> {
  const wire = await Wire.connect(`127.0.0.1:${port}`);
  wire.send(bytes);
  return wire.rest();
}

test("TLS serves who trusts its certificate, and says to others what is missing (S5)", () =>
  withTls([], async (daemon) => {
    expect(await ask(daemon, ...CA)).toEqual({ code: 0, out: "server version: 0.1.0\n", err: "" });
    const wrong = await ask(daemon, "--tls-ca", file("other-ca.pem"));
    expect(wrong.code).toBe(7);
    expect(wrong.err).toContain("error: Cannot trust who answers at");
    const plain = await ask(daemon);
    expect(plain.code).toBe(1);
    expect(plain.err).toContain("it speaks TLS: name who signed its certificate with --tls-ca");
  }));

test("TLS with --tls-client-ca serves only who has a certificate of theirs (S5)", () =>
  withTls(["--tls-client-ca", file("ca.pem")], async (daemon) => {
    const without = await ask(daemon, ...CA);
    expect(without.code).toBe(7);
    expect(without.err).toContain("caused by: it takes only who shows a certificate\n");
    expect(without.err).toContain("--tls-cert and --tls-key are what it may ask for");
    expect((await ask(daemon, ...CA, ...OWN)).out).toBe("server version: 0.1.0\n");
  }));

test("An upload goes through TLS whole, and so does output", () =>
  withTls([], async (daemon) => {
    const program = join(daemon.folder, "program");
    const script = "#!/bin/sh\necho hello\nexec sleep 1000\n";
    writeFileSync(program, script + "#".repeat(5_000_000), { mode: 0o755 });
    const run = (...words: string[]): Promise<Piped> =>
      piped([...words, "--socket", `localhost:${daemon.port}`, ...CA], {});
    const added = await run("runtime", "add", program, "--copy", "--name", "p", "-q");
    expect(added.code).toBe(0);
    expect((await run("start", "p", "-q")).code).toBe(0);
    expect((await run("logs", "p")).out).toBe("hello\n");
    expect((await run("clear", "-y")).code).toBe(0);
  }));

test("Whoever is silent before or within a handshake, or does it by the byte, is let go in time (S5)", async () => {
  const log = await withTls([], async ({ port }) => {
    const beginMs = performance.now();
    const trickle = await Wire.connect(`127.0.0.1:${port}`);
    const drip = setInterval(() => trickle.send(HALF_HELLO.subarray(0, 1)), 500);
    const ended = await Promise.all([answerTo(port, ""), answerTo(port, HALF_HELLO), trickle.rest()]);
    clearInterval(drip);
    expect(ended[0]).toHaveLength(0);
    expect(performance.now() - beginMs).toBeGreaterThan(HANDSHAKE_MS / 2);
    expect(performance.now() - beginMs).toBeLessThan(HANDSHAKE_MS + 2_000);
    expect((await ask({ port }, ...CA)).code).toBe(0);
  });
  expect(log).toMatch(/refused a TLS handshake .*it has not shaken hands within 5000 ms/);
}); // prettier-ignore

test("A crowd of no more than 64 that have not shaken hands is kept, and keeps nobody out (R25, S5)", () =>
  withTls([], async ({ port, pid }) => {
    const descriptors = (): number => readdirSync(`/proc/${pid}/fd`).length;
    const before = descriptors();
    const crowd: Wire[] = [];
    let tried = 0;
    for (const more of [MAX_HANDSHAKES - 1, 1, 1, 200]) {
      const address = `127.0.0.1:${port}`;
      // One that is let go at once may not have noticed that it was connected.
      const connect = (): Promise<Wire | undefined> => Wire.connect(address).catch(() => undefined);
      const wires = await Promise.all(Array.from({ length: more }, connect));
      crowd.push(...wires.filter((wire) => wire !== undefined));
      tried += more;
      const kept = Math.min(tried, MAX_HANDSHAKES);
      await until(
        () => `${kept} are kept, and there are ${descriptors() - before}`,
        () => descriptors() - before === kept,
      );
      const askedMs = performance.now();
      expect((await ask({ port }, ...CA)).out).toBe("server version: 0.1.0\n");
      expect(performance.now() - askedMs).toBeLessThan(2_000);
    }
    for (const wire of crowd) wire.close();
    await until("nothing is left of them", () => descriptors() <= before);
  })); // prettier-ignore

test.each([
  ["garbage", Buffer.from("ffffffffffffffffff00000000", "hex")],
  ["a request without TLS", '"Clear"\n'],
  ["a frame without TLS", Buffer.from('\0\0\0\x07"Clear"')],
  ["a web page without TLS", 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n"Clear"\n'],
  ["a hello cut by garbage", Buffer.concat([HALF_HELLO, Buffer.alloc(600, "x")])],
])("TLS: %s instead of a handshake ends its connection at once, and is carried out nowhere (S5, S6)", async (_, bytes) => {
  const log = await withTls([], async ({ port }) => {
    const beginMs = performance.now();
    const answer = await answerTo(port, bytes as string);
    expect(answer.toString()).not.toContain("Ok");
    expect(answer.length).toBeLessThan(16); // an alert at most
    expect(performance.now() - beginMs).toBeLessThan(2_000);
  });
  expect(log).toMatch(/refused a TLS handshake connection\.peer=\S+ error=/);
  expect(log).not.toContain("Clear");
}); // prettier-ignore

test("TLS: a certificate of another authority, or of nobody, opens nothing (S5)", async () => {
  const log = await withTls(["--tls-client-ca", file("ca.pem")], async ({ port }) => {
    const strangers = ["stranger", undefined] as const;
    for (const name of strangers) {
      const own =
        name === undefined
          ? {}
          : { cert: readFileSync(file(`${name}.pem`)), key: readFileSync(file(`${name}.key`)) };
      for (let i = 0; i < 20; i++) {
        const { promise, resolve } = Promise.withResolvers<string>();
        let got = "";
        const socket = await Bun.connect({
          hostname: "localhost",
          port: Number(port),
          tls: { ca: readFileSync(file("ca.pem")), ...own },
          socket: {
            handshake: (peer) => void peer.write('"Clear"\n'), // before it is told that it is not trusted
            data: (_, chunk) => void (got += chunk.toString()),
            close: () => resolve(got),
            error() {},
          },
        }).catch(() => undefined);
        if (socket !== undefined) expect(await promise).toBe("");
      }
    }
    const options = ["--tls-cert", file("stranger.pem"), "--tls-key", file("stranger.key")];
    const cli = await ask({ port }, ...CA, ...options);
    expect(cli).toMatchObject({ code: 7, err: expect.stringContaining("are what it may") });
    expect((await ask({ port }, ...CA, ...OWN)).code).toBe(0);
  });
  expect(log).toContain("refused a TLS handshake");
  expect(log).not.toContain("Clear");
});

/** A connection that has shaken hands, and whom the certificate that it was shown names. */
async function shake(port: string | number) {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let got = "";
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: Number(port),
    tls: { rejectUnauthorized: false },
    socket: {
      handshake: (peer) => resolve(String(peer.getPeerCertificate()?.subject?.CN)),
      data: (_, chunk) => void (got += chunk.toString()),
      close: () => reject(new Error("closed before it has shaken hands")),
      error() {},
    },
  });
  return { name: await promise, socket, got: () => got };
}

async function nameShown(port: string | number): Promise<string | undefined> {
  const shaken = await shake(port).catch(() => undefined); // the listener may be changing
  shaken?.socket.end();
  return shaken?.name;
}

/** Puts a certificate and its key where others are. */
function renew(folder: string, name: string, key: string = name): void {
  for (const [from, to] of [
    [`${name}.pem`, "own.pem"],
    [`${key}.key`, "own.key"],
  ] as const) {
    copyFileSync(file(from), join(folder, "new"));
    chmodSync(join(folder, "new"), 0o640);
    renameSync(join(folder, "new"), join(folder, to));
  }
}

test("A certificate that is renewed is shown without a restart, and open connections stay (S5)", () =>
  withFolder(async (certificates) => {
    renew(certificates, "daemon");
    const own = [
      "--tls-cert",
      join(certificates, "own.pem"),
      "--tls-key",
      join(certificates, "own.key"),
    ];
    const log = await withTls(own, async ({ port }) => {
      const before = await shake(port);
      expect(before.name).toBe("daemon");
      before.socket.write('"Version"\n');
      await until("it is answered", () => before.got() === '{"Ok":"0.1.0"}\n');
      renew(certificates, "client");
      await until("the other one is shown", async () => (await nameShown(port)) === "client");
      before.socket.write('"Version"\n');
      await until("it is answered still", () => before.got() === '{"Ok":"0.1.0"}\n'.repeat(2));
      before.socket.end();
    });
    expect(log).toContain("took certificates that were renewed");
    expect(log).not.toContain("every user of this machine may read");
  }));

test("A key that everybody may read is taken, and the log warns of it, as doctor does of one's own (S5)", () =>
  withFolder(async (folder) => {
    renew(folder, "daemon");
    const key = join(folder, "own.key");
    chmodSync(key, 0o644);
    const own = ["--tls-cert", join(folder, "own.pem"), "--tls-key", key];
    const log = await withTls(own, async ({ port }) => {
      const look = async (): Promise<string> =>
        (await piped(["doctor", "--socket", `localhost:${port}`, ...CA, ...own], {})).out;
      expect(await look()).toContain(
        `warning  key: ${key}: every user of this machine may read it\n         chmod o-r ${key}\n`,
      );
      chmodSync(key, 0o640);
      expect(await look()).not.toContain("  key: ");
    });
    const warning = "every user of this machine may read the key of the control socket";
    expect(log.split(warning)).toHaveLength(2);
    expect(log).toContain(`chmod o-r ${key}`);
  }));

test("A certificate that cannot be used is told of once, and the one of before stays (S5)", () =>
  withFolder(async (folder) => {
    renew(folder, "daemon");
    const host = new FakeHost();
    const lines: string[] = [];
    const log = new Log(
      parseLogFilter("info"),
      (line) => void lines.push(line),
      () => 0,
    );
    const options = {
      control: { kind: "tcp", host: "127.0.0.1", port: 0 },
      tlsCert: join(folder, "own.pem"),
      tlsKey: join(folder, "own.key"),
    } as DaemonOptions;
    const tls = readTls(options) as ServerTls;
    const closed = { data() {}, drain() {}, end() {}, close() {} };
    const fail = (error: unknown): never => {
      throw error;
    };
    const listener = listen(options.control, () => closed, fail, {
      ...tls,
      maxDescriptor: 10_000,
      refused() {},
    });
    const { port } = listener.address as { port: number };
    const end = renewTls(options, tls, listener, log.target("control"), host.after);
    const looked = (line: string): Promise<unknown> =>
      until(line, () => {
        host.turn(CERTIFICATE_LOOK_MS);
        return lines.at(-1)?.includes(line);
      });
    renew(folder, "client", "daemon"); // the key of another one
    await looked("KEY_VALUES_MISMATCH");
    writeFileSync(options.tlsCert as string, "nothing");
    await looked("it is no PEM");
    for (let i = 0; i < 3; i++) {
      host.turn(CERTIFICATE_LOOK_MS);
      await until("it has looked again", () => host.timers === 1);
    }
    expect(await nameShown(port)).toBe("daemon");
    renew(folder, "client");
    await looked("took certificates");
    expect(await nameShown(port)).toBe("client");
    expect(lines).toHaveLength(3);
    end();
    listener.stop();
    expect(host.timers).toBe(0);
  }));

test("A client that wants TLS is told at once where there is none (R30)", () =>
  withDaemon(
    async (daemon: Daemon) => {
      const beginMs = performance.now();
      const port = daemon.address.split(":").at(-1) as string;
      const { code } = await ask({ port }, ...CA);
      expect(code).toBe(5);
      expect(performance.now() - beginMs).toBeLessThan(4_000);
    },
    { control: "127.0.0.1:0", args: ["--ephemeral"] },
  ));

test.each([
  [["--tls-cert", file("daemon.pem")], "--tls-cert and --tls-key are needed together"],
  [["--tls-client-ca", file("ca.pem")], "--tls-cert and --tls-key are needed together"],
  [SERVER.slice(1), "Cannot use TLS on a Unix path"],
  [
    ["--control-socket", "127.0.0.1:0", "--tls-cert", "/nowhere", "--tls-key", "/nowhere"],
    "no such file",
  ],
  [
    [
      "--control-socket",
      "127.0.0.1:0",
      "--tls-cert",
      import.meta.path,
      "--tls-key",
      file("ca.pem"),
    ],
    "it is no PEM",
  ],
])("A start with %p is refused", (args, reason) =>
  withFolder(async (_folder, launch) => {
    const ended = await launch(args).end();
    expect([ended.code === 0, ended.stderr]).toEqual([false, expect.stringContaining(reason)]);
  }),
);
