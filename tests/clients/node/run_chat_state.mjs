// What a chat remembers, as a page without a framework would.

export class State {
  status = "ready";
  error = undefined;

  constructor(messages = []) {
    this.messages = messages;
  }

  pushMessage = (message) => {
    this.messages = [...this.messages, message];
  };

  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };

  replaceMessage = (index, message) => {
    this.messages = [...this.messages.slice(0, index), structuredClone(message), ...this.messages.slice(index + 1)];
  };

  snapshot = (value) => structuredClone(value);
}
