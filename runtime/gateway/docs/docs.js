/* Shows the document that the page names, in Swagger UI. Nothing is asked of any other host: no validator, no
 * configuration from the address. Requests that are tried out go with the login that the browser has. */
SwaggerUIBundle({
    url: document.body.dataset.document,
    dom_id: "#swagger-ui",
    validatorUrl: null,
    queryConfigEnabled: false,
    docExpansion: "full",
    tryItOutEnabled: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
});
