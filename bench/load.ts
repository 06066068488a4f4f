// One load generator, as its plan says. The same program runs below the orchestrator, at a baseline,
// and joined directly to its counterpart.

import { readFileSync } from "node:fs";

import { Greeting } from "./greeting.ts";
import { Collector, Pacer } from "./lines.ts";
import type { LoadPlan } from "./plan.ts";
import type { Role, Socket } from "./role.ts";
import { reportTo } from "./side.ts";
import { Consumer, Producer } from "./stream.ts";
import { Asker, Echo } from "./trip.ts";

const plan = JSON.parse(readFileSync(process.argv[2] as string, "utf8")) as LoadPlan;
let role: Role | undefined;
let greeting: Greeting | undefined;

const handlers: Bun.SocketHandler<undefined> = {
  data: (socket, chunk) => {
    if (greeting?.isOver === false) greeting.push(socket, chunk);
    else role?.data(socket, chunk);
  },
  drain: () => role?.drain(),
  close: () => process.exit(0),
};

/** The data socket; undefined if somebody is to connect to us. */
async function open(): Promise<Socket | undefined> {
  if (plan.role === "collector") return undefined;
  if (plan.listen !== undefined) {
    Bun.listen<undefined>({ unix: plan.listen, socket: handlers });
    return undefined;
  }
  const to = plan.connect ?? process.env["VEECLE_IPC_SOCKET"] ?? "";
  return typeof to === "string"
    ? Bun.connect<undefined>({ unix: to, socket: handlers })
    : Bun.connect<undefined>({ hostname: "127.0.0.1", port: to, socket: handlers });
}

function roleOf(socket: Socket): Role {
  switch (plan.role) {
    case "producer":
      return new Producer(plan, socket);
    case "consumer":
      return new Consumer(plan);
    case "asker":
      return new Asker(plan, socket);
    case "echo":
      return new Echo();
    case "pacer":
      return new Pacer(plan, socket);
    case "collector":
      return new Collector();
    case "silent":
      socket.pause();
      return { data() {}, drain() {}, command() {} };
  }
}

const socket = await open();
if (plan.greets !== undefined) {
  greeting = new Greeting(plan, socket as Socket);
  await greeting.done;
}
role = roleOf(socket as Socket);
await reportTo(plan.side, plan.name, (command, answer) => role?.command(command, answer));
