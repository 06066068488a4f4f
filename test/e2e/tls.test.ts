// Control over TCP with TLS: who is trusted by whom, and what others are told.

import { expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { type Daemon, withDaemon, withFolder } from "../support/daemon.ts";
import { type Piped, piped } from "../support/screen.ts";

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
  body: (daemon: { readonly port: string; readonly folder: string }) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder, launch) => {
    const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const port = String(probe.port);
    probe.stop(true);
    const daemon = launch(["--control-socket", `localhost:${port}`, ...SERVER, ...args]);
    const address = { port };
    while ((await ask(address, ...CA, ...OWN)).code === 5) {} // until it listens
    await body({ port, folder });
    const ended = await daemon.end("SIGTERM");
    expect(ended.code).toBe(0);
    expect(ended.stderr).not.toContain("defect");
  });
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
