// What every load generator is.

import type { Command } from "./plan.ts";
import type { Answer } from "./side.ts";

export type Socket = Bun.Socket<undefined>;

/** What a load generator does with its data socket and with the commands of the bench. */
export interface Role {
  data(socket: Socket, chunk: Buffer): void;
  drain(): void;
  command(command: Command, answer: Answer): void;
}
