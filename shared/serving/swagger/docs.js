// Shows the service's own OpenAPI document. A script of its own, because the page's
// Content-Security-Policy forbids inline scripts.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // the validator is on another host
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  // the gateway asks for this header where a session's cookie authenticates a call that changes
  requestInterceptor: (request) => {
    if (request.method !== "GET") request.headers["x-dimee-dashboard"] = "1";
    return request;
  },
});
