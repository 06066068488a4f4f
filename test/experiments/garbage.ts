// Bytes that are nearly right, at the sockets of a running daemon, with good requests in between (R27).

import { inputOf } from "../fuzz/search.ts";
import { SURFACES } from "../fuzz/surfaces.ts";
import { withDaemon } from "../support/daemon.ts";
import { Wire } from "../support/wire.ts";
import { demand, milliseconds, multiple, type Outcome } from "./outcome.ts";

/** Surfaces of the control socket, and of UDP. */
const STREAMS = ["control-veecle", "control-native", "uploads"] as const;

/** How long what is answered is read. */
const STREAM_MS = 30;

/** Connections at once, each with one input. */
const AT_ONCE = 50;

export interface Garbage {
  readonly inputs: number;
  readonly seed: number;
}

/** Every input on a connection of its own, and as a datagram; none of them may change anything else. */
export async function garbage({ inputs, seed }: Garbage): Promise<Outcome> {
  const answers: number[] = [];
  let grownBytes = 0;
  await withDaemon(
    async (daemon) => {
      const [host, port] = (await daemon.ipcAddress()).split(":") as [string, string];
      const udp = await Bun.udpSocket({ hostname: "127.0.0.1" });
      const surfaces = STREAMS.map((name) =>
        (SURFACES[name] as NonNullable<(typeof SURFACES)[string]>)(),
      );
      const datagrams = (SURFACES["datagrams"] as NonNullable<(typeof SURFACES)[string]>)();
      const control = await daemon.control();
      await control.ok("Version");
      let warmBytes = 0;
      for (let done = 0; done < inputs; done += AT_ONCE) {
        const offend = async (index: number): Promise<void> => {
          const at = seed + done + index;
          const wire = await Wire.connect(daemon.address).catch(() => undefined);
          wire?.send(inputOf(surfaces[at % surfaces.length] as (typeof surfaces)[0], at));
          udp.send(inputOf(datagrams, at), Number(port), host);
          wire?.finish();
          // Whatever it says, or a reset; some of the inputs open a stream that does not end.
          await wire?.rest(STREAM_MS).catch(() => undefined);
          wire?.close();
        };
        await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => offend(index)));
        const askedMs = performance.now();
        const version = await control.ok("Version");
        answers.push(performance.now() - askedMs);
        demand(version === "0.1.0", `a good request is answered with ${String(version)}`);
        await control.ok("Clear"); // some of the inputs were right
        if (warmBytes === 0 && done >= inputs / 4) warmBytes = daemon.memory();
      }
      udp.close();
      grownBytes = daemon.memory() - warmBytes;
    },
    { args: ["--ipc-socket", "127.0.0.1:0"] },
  );
  answers.sort((a, b) => a - b);
  return {
    work: `${inputs} inputs at the control socket and over UDP`,
    figures: [
      milliseconds("answered p99", answers[Math.floor(answers.length * 0.99)] as number, 50, 1_000),
      multiple("memory + MiB", grownBytes / 2 ** 20, 16, 64),
    ],
  };
}
