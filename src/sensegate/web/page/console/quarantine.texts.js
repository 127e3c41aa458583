// Texts of the quarantine.
import { addTexts } from "./lib.js";

addTexts({
  inQuarantine: ["{0} messages", "{0} 条消息"], inbox: ["Inbox: by reason, profile and topic", "待处理：按原因、物模型和主题分组"], noTopic: ["no topic", "无主题"],
  noProfileYet: ["no profile", "无物模型"], inboxEmptyAtCentre: ["The centre’s own inbox is empty; messages in quarantine stay at the node that received them.", "中心自身没有待处理消息；被隔离的消息保存在接收它的节点。"], inboxEmpty: ["The inbox is empty: every message was decoded.", "没有待处理消息：全部消息均已解析。"],
  moreQuarantined: ["There are more than could be counted at once: choose a shorter time.", "消息过多，未能全部统计，请缩短时段。"], redecodeGroup: ["Decode again", "重新解析"],
  redecodeGroupHelp: ["The {0} messages of this group, and others of the same time in quarantine, are decoded by the version in force. What gives readings leaves the quarantine, exactly once.", "本组 {0} 条消息及同一时段隔离区中的其他消息将按现行版本重新解析；得出数值的消息离开隔离区，且只入库一次。"],
  groupDevices: ["Devices: {0}", "设备：{0}"], fixProfile: ["Mend its profile", "修改物模型"], toDevice: ["Device", "设备"], sure: ["sure", "确定"], guessed: ["guessed", "推测"],
  openInEditor: ["Open in the editor", "在编辑器中打开"], recoveredMessages: ["{0} recovered, {1} still refused", "恢复 {0} 条，仍被拒 {1} 条"],
  "state.unrecognised": ["not recognised", "未识别"], "column.field": ["field", "字段"], "column.guess": ["guess", "判断"],
});
