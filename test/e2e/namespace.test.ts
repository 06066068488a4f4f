// Control over TCP from another machine, as far as the kernel can make one: a network of its own.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { withDaemon, withFolder } from "../support/daemon.ts";
import { until, Wire } from "../support/wire.ts";

setDefaultTimeout(60_000);

const CLI = join(import.meta.dir, "../../src/cli.ts");
const NAME = `vo-${process.pid}`;
const HERE = "10.217.93.1";
const file = (name: string): string => join(import.meta.dir, "../fixtures/tls", name);

function ip(...words: string[]): boolean {
  try {
    return Bun.spawnSync({ cmd: ["ip", ...words], stdio: ["ignore", "ignore", "ignore"] }).success;
  } catch {
    return false; // it is not installed
  }
}

/** Makes a network that a cable leads to; false where that is not allowed. */
function connectNetwork(): boolean {
  const cable = `vo${process.pid}`;
  const isThere =
    ip("netns", "add", NAME) &&
    ip("link", "add", cable, "type", "veth", "peer", "name", "far", "netns", NAME) &&
    ip("addr", "add", `${HERE}/30`, "dev", cable) &&
    ip("link", "set", cable, "up") &&
    ip("-n", NAME, "addr", "add", "10.217.93.2/30", "dev", "far") &&
    ip("-n", NAME, "link", "set", "far", "up");
  if (!isThere) removeNetwork();
  return isThere;
}

function removeNetwork(): void {
  ip("link", "del", `vo${process.pid}`);
  ip("netns", "del", NAME);
}

const isAllowed = process.getuid?.() === 0 && connectNetwork();
if (isAllowed) removeNetwork();

/** Runs a program in the other network; returns all that it printed. */
async function there(...cmd: string[]): Promise<string> {
  const child = Bun.spawn({
    cmd: ["ip", "netns", "exec", NAME, "timeout", "10", ...cmd],
    env: { PATH: process.env["PATH"] ?? "" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const texts = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return texts.join("");
}

const cli = (...words: string[]): Promise<string> => there(process.execPath, CLI, ...words);

/** Skipped without root, the program `ip`, or the right to make networks. */
describe.skipIf(!isAllowed)("from another network, TCP serves", () => {
  test("nobody without the token, and whoever has it (P-55, S5)", () =>
    withFolder(async (folder) => {
      const token = join(folder, "token");
      writeFileSync(token, "0123456789abcdefghijk\n", { mode: 0o600 });
      const wrong = join(folder, "wrong");
      writeFileSync(wrong, "0123456789abcdefghijl\n", { mode: 0o600 });
      expect(connectNetwork()).toBe(true);
      try {
        await withDaemon(
          async (daemon) => {
            const id = await daemon.add("/bin/true");
            const address = `${HERE}:${daemon.address.split(":").at(-1)}`;
            const [host, port] = address.split(":") as [string, string];
            const raw = `exec 3<>/dev/tcp/${host}/${port}; printf '"Clear"\\n' >&3; cat <&3`;
            expect(await there("bash", "-c", raw)).toContain("it needs a token first");
            expect(await cli("clear", "-y", "--socket", address)).toContain("needs a token first");
            expect(await cli("clear", "-y", "--socket", address, "--token-file", wrong)).toContain(
              "the token is another one",
            );
            expect(Object.keys((await daemon.info()).runtimes)).toEqual([id]);
            expect(await cli("ps", "-q", "--socket", address, "--token-file", token)).toContain(id);
          },
          { control: "0.0.0.0:0", args: ["--ephemeral", "--token-file", token] },
        );
      } finally {
        removeNetwork();
      }
    }));

  test("nobody without a certificate where one is asked for, and whoever has one (S5)", () =>
    withFolder(async (_, launch) => {
      expect(connectNetwork()).toBe(true);
      try {
        const probe = Bun.listen({ hostname: HERE, port: 0, socket: { data() {} } });
        const { port } = probe;
        probe.stop(true);
        const daemon = launch([
          ...["--control-socket", `${HERE}:${port}`, "--ephemeral"],
          ...["--tls-cert", file("daemon.pem"), "--tls-key", file("daemon.key")],
          ...["--tls-client-ca", file("ca.pem")],
        ]);
        const connect = (): Promise<Wire | undefined> => Wire.connect(`${HERE}:${port}`).catch(() => undefined); // prettier-ignore
        (await until("it listens", connect)).close();
        // The certificate is for localhost: who connects says that it means it.
        const ask = (own: string): Promise<string> =>
          there(process.execPath, "-e", `
            const read = (name) => Bun.file(${JSON.stringify(`${file("")}/`)} + name).text();
            const own = ${own};
            const tls = { ca: await read("ca.pem"), serverName: "localhost", ...own };
            await Bun.connect({ hostname: "${HERE}", port: ${port}, tls, socket: {
              handshake: (socket) => void socket.write('"Version"\\n'),
              data: (socket, chunk) => { process.stdout.write(chunk); socket.end(); },
              close: () => process.exit(), error() {},
            } });
            setTimeout(() => process.exit(), 5000);`); // prettier-ignore
        const owning = (name: string): string =>
          `{ cert: await read("${name}.pem"), key: await read("${name}.key") }`;
        expect(await ask(owning("client"))).toBe('{"Ok":"0.1.0"}\n');
        expect(await ask("{}")).not.toContain("Ok");
        expect(await ask(owning("stranger"))).not.toContain("Ok");
        expect((await daemon.end("SIGTERM")).code).toBe(0);
      } finally {
        removeNetwork();
      }
    }));
});
