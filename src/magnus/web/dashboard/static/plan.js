"use strict";
// The page that holds this frame hands over the plan: this document asks the server for nothing.
window.addEventListener("message", (event) => {
  if (event.origin !== window.location.origin || !event.data || !event.data.plan) return;
  const root = document.getElementById("app");
  const { plan, query } = event.data;
  window.Vue.createApp({ render: () => window.Vue.h(window.pev2.Plan, { planSource: plan, planQuery: query }) }).mount(root);
});
window.parent.postMessage("plan-ready", window.location.origin);
