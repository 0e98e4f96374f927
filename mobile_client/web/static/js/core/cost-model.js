// The paper's cost model in λ, as in shared/pricing/cost_model.py.

/** @import { CostPrices, Tier } from "./domain.js" */

/** Default price of waiting one millisecond, in λ. */
export const LATENCY_PRICE_LAMBDA = 0.018;

/** The paper's prices: λm and λe for a layer, oe and oc for an offload, γ for the cloud's fee. */
export class CostModel {
  /**
   * @param {CostPrices} prices in λ
   * @param {number} layers the encoder's number of layers
   */
  constructor(prices, layers) {
    this.mobileLayer = prices.mobile_layer;
    this.edgeLayer = prices.edge_layer;
    this.offloadEdge = prices.offload_edge;
    this.offloadCloud = prices.offload_cloud;
    this.cloudFee = prices.cloud_fee;
    this.layers = layers;
  }

  /** Cost in λ of an answer from the cloud: oc + γ. */
  get allCloud() {
    return this.offloadCloud + this.cloudFee;
  }

  /**
   * Return the λ of an answer at `exitLayer` of `tier` (paper, eq. 2).
   * @param {Tier} tier
   * @param {number} exitLayer may be a mean number of layers
   */
  attempt(tier, exitLayer) {
    if (tier === "mobile") return this.mobileLayer * exitLayer;
    if (tier === "edge") return this.offloadEdge + this.edgeLayer * exitLayer;
    return this.allCloud;
  }

  /**
   * Return the λ of an attempt without an answer: its offload, if anything was sent.
   * @param {Tier} tier
   * @param {boolean} sent
   */
  wasted(tier, sent) {
    if (!sent || tier === "mobile") return 0;
    return tier === "edge" ? this.offloadEdge : this.offloadCloud;
  }
}
