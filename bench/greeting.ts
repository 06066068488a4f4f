// How a load generator greets who is at the other end, before anything is measured.

import { encodeNative, KIND } from "../src/message.ts";
import { subject } from "./bytes.ts";
import type { LoadPlan } from "./plan.ts";
import type { Socket } from "./role.ts";

/** Any line does. */
const VEECLE_GREETING = '{"Telemetry":{"thread_id":"bench","message":{}}}\n';

/** Takes what comes until the greeting is over; what comes then is the load generator's. */
export class Greeting {
  readonly done: Promise<void>;
  isOver = false;
  readonly #resolve: () => void;
  readonly #isComplete: (answer: Buffer) => boolean;
  readonly #reply: string;
  #answer: Buffer = Buffer.alloc(0);

  constructor(plan: LoadPlan, socket: Socket) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.done = promise;
    this.#resolve = resolve;
    const isNats = plan.greets === "nats-server";
    const isNative = "traffic" in plan && plan.traffic.wire === "native";
    this.#isComplete = isNats ? isNatsReady : isWholeFrame;
    this.#reply = isNats ? "PONG\r\n" : "";
    if (isNats) {
      const name = plan.role === "consumer" ? subject(plan.traffic.types[0] as number) : undefined;
      const subscribe = name === undefined ? "" : `SUB ${name} 1\r\n`;
      socket.write(`CONNECT {"verbose":false,"pedantic":false}\r\n${subscribe}PING\r\n`);
    } else if (plan.greets === "orchestrator" && isNative) {
      socket.write(encodeNative(KIND.hello, Buffer.alloc(0), Buffer.from('{"version":1}')));
    } else {
      if (plan.greets === "orchestrator") socket.write(VEECLE_GREETING);
      this.#end();
    }
  }

  /** Takes what comes before the answer is complete. */
  push(socket: Socket, chunk: Buffer): void {
    this.#answer = Buffer.concat([this.#answer, chunk]);
    if (!this.#isComplete(this.#answer)) return;
    if (this.#reply !== "") socket.write(this.#reply);
    this.#end();
  }

  #end(): void {
    this.isOver = true;
    this.#resolve();
  }
}

function isWholeFrame(answer: Buffer): boolean {
  return answer.length >= 4 && answer.length >= 4 + answer.readUInt32BE(0);
}

/** It answers our PING, and pings once by itself two seconds later: then nothing but messages comes. */
function isNatsReady(answer: Buffer): boolean {
  return answer.includes("PONG\r\n") && answer.includes("PING\r\n");
}
