// R21: messages that go round. Nothing stands still, nothing is lost, and nothing grows.

import type { Actor } from "../fixtures/stage.ts";
import { type Daemon, withDaemon } from "../support/daemon.ts";
import { storable, until, within } from "../support/wire.ts";
import { peakMemory, tell } from "./group.ts";
import { demand, memory, milliseconds, type Outcome } from "./outcome.ts";

/** Whatever goes round must move within this time, and every request be answered. */
const WATCHDOG_MS = 2_000;

/** Until a daemon that was idle has the memory that it works with. */
const warmUp = (ms: number): Promise<void> => Bun.sleep(Math.max(500, ms / 10));

export interface LoopSize {
  /** Instances in the circle: 1 is one that is linked to itself. */
  readonly instances: number;
  readonly messages: number;
  readonly ms: number;
  /** Settings of its links, besides those that are usual. */
  readonly settings?: object;
}

/** Instances hand on what they get to the next one; in the end every message is still there, once. */
export async function circle(size: LoopSize): Promise<Outcome> {
  let [forwarded, slowest, before, peak] = [0, 0, 0, 0];
  await withDaemon(async (daemon) => {
    const players = await Promise.all(
      Array.from({ length: size.instances }, () => daemon.actor("player.ts")),
    );
    for (const [i, player] of players.entries()) {
      const to = players[(i + 1) % players.length] as Actor;
      const link = { type_name: "round", from: player.id, to: to.id };
      await daemon.ok({ Link: { ...link, ...size.settings } });
      await tell(player, { forward: { type: "round", to: "round" } });
    }
    const [first] = players as [Actor];
    await tell(first, { inject: { type: "round", count: size.messages, bytes: 60 } });
    before = await peakMemory(daemon, warmUp(size.ms));
    const work = (async () => {
      for (const end = performance.now() + size.ms; performance.now() < end;) {
        slowest = Math.max(slowest, await turn(daemon, players));
      }
    })();
    peak = await peakMemory(daemon, work);
    for (const player of players) await tell(player, { hold: true });
    const reports = await until("every message is held", async () => {
      const found = await Promise.all(players.map((player) => tell(player)));
      return found.reduce((sum, { held }) => sum + held, 0) === size.messages && found;
    });
    demand(
      reports.every(({ isEachOnce }) => isEachOnce),
      "No message is there twice",
    );
    forwarded = reports.reduce((sum, report) => sum + report.forwarded, 0);
    const { routes } = await daemon.info();
    demand(
      routes.every(({ dropped }) => Object.keys(dropped).length === 0),
      "Nothing is dropped",
      routes,
    );
  });
  return {
    work: `${size.messages} messages, ${forwarded} steps in a circle of ${size.instances}`,
    figures: [
      milliseconds("longest wait for all to move", slowest, WATCHDOG_MS, WATCHDOG_MS),
      memory(peak - before, 4 * size.instances),
    ],
  };
}

/** Waits until each has handed on something, and a request is answered; returns how long it took. */
async function turn(daemon: Daemon, players: readonly Actor[]): Promise<number> {
  const begin = performance.now();
  const before = await Promise.all(players.map((player) => tell(player)));
  await within("an answer", daemon.ok("Version"), WATCHDOG_MS);
  await until(
    "every instance hands on messages",
    async () => {
      const after = await Promise.all(players.map((player) => tell(player)));
      return after.every(({ forwarded }, i) => forwarded > (before[i]?.forwarded ?? 0));
    },
    WATCHDOG_MS,
  );
  return performance.now() - begin;
}

/** Two orchestrators send messages round and round: each goes on serving, and neither grows. */
export async function orchestrators(size: { messages: number; ms: number }): Promise<Outcome> {
  const options = { args: ["--ipc-socket", "127.0.0.1:0"] };
  let [routed, slowest, before, peak] = [0, 0, 0, 0];
  await withDaemon(
    (here) =>
      withDaemon(async (there) => {
        const back = { type_name: "T", to: await here.ipcAddress() };
        const wire = await (await here.puppet()).connect();
        await here.link("T", await there.ipcAddress());
        await there.ok({ Link: back });
        for (let i = 0; i < size.messages; i++) wire.send(storable("T", `${i}`));
        before = await peakMemory(here, warmUp(size.ms));
        const count = async (): Promise<number> => (await here.info()).routes[0]?.routed ?? 0;
        const work = (async () => {
          for (const end = performance.now() + size.ms; performance.now() < end;) {
            const begin = performance.now();
            const first = await count();
            await within("an answer", there.ok("Version"), WATCHDOG_MS);
            await until("they go round", async () => (await count()) > first, WATCHDOG_MS);
            slowest = Math.max(slowest, performance.now() - begin);
          }
        })();
        peak = await peakMemory(here, work);
        routed = await count();
        await there.ok({ Unlink: back });
      }, options),
    options,
  );
  return {
    work: `${size.messages} messages between two orchestrators, ${routed} round trips`,
    figures: [
      milliseconds("longest wait for an answer", slowest, WATCHDOG_MS, WATCHDOG_MS),
      memory(peak - before, 0),
    ],
  };
}
