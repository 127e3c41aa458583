// Texts of the editor of profiles, the comparison and the canary.
import { addTexts } from "./lib.js";

addTexts({
  tabHelp: ["Tab indents; Escape, then Tab leaves the text.", "Tab 键缩进；按 Esc 后再按 Tab 键可离开文本框。"],
  editProfile: ["Edit", "编辑"], "job.diff": ["comparison", "比对"], "trial.canary": ["canary", "灰度"], "stage.message": ["message", "消息"],
  "stage.claim": ["who decodes it", "由谁解析"], "stage.envelope": ["envelope", "信封"], "stage.profile": ["profile", "物模型"], "stage.rules": ["rules", "规则"],
  "stage.fields": ["fields", "字段"], "stage.readings": ["readings", "读数"], "stage.identity": ["identity", "去重标识"], "stage.commit": ["commit", "入库"],
  "trial.shadow": ["shadow", "影子"], editorOf: ["Editor: {0}", "物模型编辑：{0}"], newProfile: ["new profile", "新物模型"], allVersions: ["All versions", "全部版本"],
  textOf: ["Text of the profile", "物模型文本"], acceptSeen: ["Accept values seen in examples", "以示例实得值为期望值"],
  acceptedExamples: ["These examples expect now what they give; compare them with the maker's document: {0}", "下列示例的期望值已改为实得值，请对照厂家文档核对：{0}"],
  nothingToAccept: ["All examples already expect what they give.", "全部示例的期望值与实得值一致。"], draftSaved: ["Version {0} is saved as a draft.", "版本 {0} 已保存为草稿。"],
  compareRecorded: ["Compare over 24 hours", "与近 24 小时消息比对"], noFindings: ["No finding: it compiles and all examples pass.", "未发现问题：可以编译，全部示例通过。"],
  tryMessage: ["Try a message", "试解析一条消息"], tryHelp: ["Write a payload: every stage of its decoding is shown here.", "填入报文后，此处逐级显示解析过程。"],
  encoding: ["Written as", "书写方式"], payload: ["Payload", "报文"], schemaHelp: ["Keys", "可用字段"], showKeys: ["Show", "显示"], hide: ["Hide", "隐藏"],
  schemaHelpText: ["The keys that may stand at the cursor, with their meaning.", "光标处可用的字段及其含义。"], topLevel: ["top level", "顶层"],
  comparison: ["Comparison over recorded messages", "与已存消息比对"], comparedMessages: ["{0} messages, {1} values the same", "{0} 条消息，{1} 个数值相同"], before: ["in force", "现行"],
  after: ["new", "新版"], outsideRange: ["outside range", "超出范围"], noDifferences: ["Both versions give the same.", "两个版本结果相同。"],
  moreDifferences: ["{0} further differences are only counted.", "另有 {0} 处差异仅计数。"],
  valuesBeforeAfter: ["First value of each changed series; on the line nothing changes", "各变化序列的首个数值；落在线上即无变化"],
  canaryDevices: ["Devices (instead of a share)", "指定设备（代替比例）"], canaryOf: ["Canary: version {0}", "灰度：版本 {0}"], canaryGroup: ["canary", "灰度设备"],
  otherGroup: ["others", "其他设备"], outcomes: ["values", "数值"], rejectedShare: ["rejected", "拒收比例"], faultsShare: ["bad quality", "无效比例"],
  canaryDevicesCount: ["Devices: {0}, since", "{0} 台设备，开始于"],
  canaryLimits: ["Rolled back by itself above {0} more rejected or {1} more bad, after {2} values.", "拒收比例高出 {0} 或无效比例高出 {1} 时自动回退（满 {2} 个数值后判断）。"],
  "difference.value": ["other value", "数值不同"], "difference.time": ["other time", "时间不同"], "difference.only_a": ["missing in new", "新版缺少"],
  "difference.only_b": ["only in new", "仅新版有"], "difference.refusal": ["quarantine", "隔离"], "difference.rejection": ["rejection", "拒收"],
  "column.before": ["in force", "现行"], "column.after": ["new", "新版"], "column.factor": ["factor", "倍数"], "column.group": ["group", "分组"],
});
